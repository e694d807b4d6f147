/* Linked into DPDK's l3fwd: says every half second how many packets per second port 0 receives and sends, in the words
 * testpmd has for it. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <rte_ethdev.h>

static void *report(void *unused)
{
	struct rte_eth_stats before = {0}, now;
	double then = 0;

	for (;;) {
		struct timespec clock;
		double t;

		usleep(500000);
		if (!rte_eth_dev_is_valid_port(0) || rte_eth_stats_get(0, &now) != 0)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &clock);
		t = clock.tv_sec + clock.tv_nsec * 1e-9;
		/* Nothing moves before the tables are filled: only rates count. */
		if (before.ipackets > 0) {
			printf("Rx-pps: %.0f Tx-pps: %.0f\n", (now.ipackets - before.ipackets) / (t - then),
			       (now.opackets - before.opackets) / (t - then));
			fflush(stdout);
		}
		before = now;
		then = t;
	}
	return unused;
}

__attribute__((constructor)) static void start(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, report, NULL);
}
