use std::net::IpAddr;

use proptest::prelude::*;

use super::state::{State, Step};
use crate::harness::{self, RouteShape, Told};
use crate::wire::{Messages, Request};
use crate::{Config, RouteKind};

const NEW: u16 = libc::RTM_NEWROUTE;
const DEL: u16 = libc::RTM_DELROUTE;

struct Run {
    state: State,
    told: Told,
}

impl Run {
    /// With nothing known and no dump due.
    fn new(config: &Config) -> Run {
        let mut run = Run { state: State::new(config), told: Told::default() };
        Step::ALL.into_iter().for_each(|step| run.dump(step, &[]));
        run.state.quiet();
        run
    }

    fn input(&mut self, request: &Request, dump: bool) {
        let message = Messages(request.bytes()).next().expect("a message").expect("well formed");
        self.state.input(&message, dump, &mut |change| self.told.take(change));
    }

    fn notify(&mut self, request: &Request) {
        self.input(request, false);
    }

    fn dump(&mut self, step: Step, requests: &[Request]) {
        self.state.begin(step);
        requests.iter().for_each(|request| self.input(request, true));
        self.finish(step);
    }

    fn finish(&mut self, step: Step) {
        self.state.finish(step, &mut |change| self.told.take(change));
    }

    /// Last bytes of the routers of the best route of prefix number `prefix`.
    fn routers(&self, prefix: u8) -> Option<Vec<u8>> {
        let last = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.octets()[3],
            IpAddr::V6(addr) => addr.octets()[15],
        };
        let is = |dst: IpAddr| match dst {
            IpAddr::V4(dst) => dst.octets()[1] == prefix,
            IpAddr::V6(dst) => dst.octets()[5] == prefix,
        };
        let route = self.told.routes.values().find(|route| is(route.dst))?;
        Some(route.next_hops.iter().map(|hop| hop.via.map_or(0, last)).collect())
    }
}

fn route(v6: bool, prefix: u8, priority: u32, hops: &[u8]) -> RouteShape {
    RouteShape { v6, prefix, priority, kind: libc::RTN_UNICAST, hops: hops.to_vec(), dead: false }
}

#[test]
fn the_lowest_priority_with_a_next_hop_alive_is_best() {
    let mut run = Run::new(&Config::default());
    run.notify(&route(false, 1, 20, &[2]).request(NEW, 0));
    run.notify(&route(false, 1, 10, &[3]).request(NEW, 0));
    assert_eq!(run.routers(1), Some(vec![3]));
    let dead = RouteShape { dead: true, ..route(false, 1, 10, &[3]) };
    run.notify(&dead.request(NEW, libc::NLM_F_REPLACE));
    assert_eq!(run.routers(1), Some(vec![2]));
    run.notify(&dead.request(DEL, 0));
    run.notify(&RouteShape { kind: libc::RTN_BLACKHOLE, ..route(false, 1, 5, &[]) }.request(NEW, 0));
    assert_eq!(run.told.routes.values().next().map(|route| route.kind), Some(RouteKind::Blackhole));
    assert_eq!((run.state.stats.surprises, run.state.wanted()), (0, None));
}

#[test]
fn legs_of_ipv6_may_come_one_by_one() {
    let mut run = Run::new(&Config::default());
    let leg = |via| route(true, 1, 1024, &[via]).request(NEW, 0);
    run.dump(Step::RoutesV6, &[leg(4), leg(2)]);
    assert_eq!(run.routers(1), Some(vec![2, 4]));
    run.notify(&leg(3));
    assert_eq!(run.routers(1), Some(vec![2, 3, 4]));
    run.notify(&route(true, 1, 1024, &[2]).request(DEL, 0));
    run.notify(&route(true, 1, 1024, &[9, 3]).request(NEW, libc::NLM_F_APPEND));
    assert_eq!(run.routers(1), Some(vec![3, 9]), "a message of several legs names all");
    run.notify(&route(true, 1, 1024, &[3, 9]).request(DEL, 0));
    assert_eq!(run.routers(1), None);
    assert_eq!((run.state.stats.surprises, run.state.routes_known()), (0, 0));
}

#[test]
fn a_dump_tells_the_difference_and_a_route_is_never_missing_meanwhile() {
    let mut run = Run::new(&Config::default());
    let known = |prefix, via| route(false, prefix, 0, &[via]).request(NEW, 0);
    run.dump(Step::RoutesV4, &[known(1, 2), known(2, 2), known(3, 2)]);
    run.state.begin(Step::RoutesV4);
    run.input(&known(1, 2), true);
    run.input(&known(2, 3), true);
    assert_eq!([1, 2, 3].map(|prefix| run.routers(prefix)), [Some(vec![2]), Some(vec![3]), Some(vec![2])]);
    // A notification on the way counts as seen.
    run.notify(&known(4, 2));
    run.finish(Step::RoutesV4);
    assert_eq!([3, 4].map(|prefix| run.routers(prefix)), [None, Some(vec![2])]);
    assert_eq!(run.state.routes_known(), 3);
}

#[test]
fn the_order_of_a_dump_wins() {
    let mut run = Run::new(&Config::default());
    let one = |via| route(false, 1, 0, &[via]).request(NEW, 0);
    run.dump(Step::RoutesV4, &[one(2), one(3)]);
    assert_eq!(run.routers(1), Some(vec![2]));
    run.dump(Step::RoutesV4, &[one(3), one(2)]);
    assert_eq!(run.routers(1), Some(vec![3]));
}

#[test]
fn what_a_notification_leaves_open_is_asked() {
    let mut run = Run::new(&Config::default());
    run.notify(&route(false, 1, 0, &[2]).request(DEL, 0));
    assert_eq!((run.state.stats.surprises, run.state.wanted()), (1, Some(Step::RoutesV4)));
    // During a dump, or right after, it may be of something the dump did not have any more.
    let mut run = Run::new(&Config::default());
    run.dump(Step::RoutesV4, &[]);
    run.notify(&route(false, 1, 0, &[2]).request(DEL, 0));
    assert_eq!((run.state.stats.surprises, run.state.wanted()), (0, None));
    // But which of several a REPLACE meant is not known then.
    run.notify(&route(false, 1, 0, &[2]).request(NEW, libc::NLM_F_APPEND));
    run.notify(&route(false, 1, 0, &[3]).request(NEW, libc::NLM_F_APPEND));
    run.notify(&route(false, 1, 0, &[4]).request(NEW, libc::NLM_F_REPLACE));
    assert_eq!(run.state.wanted(), Some(Step::RoutesV4));
    // A link that goes down, an address that goes: the kernel is silent about their routes.
    let mut run = Run::new(&Config::default());
    run.notify(&harness::link(libc::RTM_NEWLINK, 3, 1));
    assert_eq!(run.state.wanted(), None);
    run.notify(&harness::link(libc::RTM_NEWLINK, 3, 0));
    assert_eq!(run.state.wanted(), Some(Step::Links), "and routes");
    let mut run = Run::new(&Config::default());
    run.notify(&harness::address(libc::RTM_NEWADDR, 1, 0));
    run.notify(&harness::address(libc::RTM_DELADDR, 1, 0));
    assert_eq!(run.state.wanted(), Some(Step::Links), "and routes");
}

#[test]
fn what_does_not_fit_is_refused_and_asked_for_when_there_is_room() {
    let config = Config { neighbors_max: 8, ..Config::default() };
    let mut run = Run::new(&config);
    (0..10).for_each(|last| run.notify(&harness::neighbor(libc::RTM_NEWNEIGH, last, 1)));
    assert_eq!((run.told.neighbors.len(), run.told.too_many, run.state.stats.refused), (8, 1, 2));
    assert_eq!(run.state.wanted(), None);
    run.notify(&harness::neighbor(libc::RTM_DELNEIGH, 3, 1));
    assert_eq!(run.state.wanted(), Some(Step::Neighbors));
    let there: Vec<Request> =
        (0..10).filter(|l| *l != 3).map(|l| harness::neighbor(libc::RTM_NEWNEIGH, l, 1)).collect();
    run.dump(Step::Neighbors, &there);
    assert_eq!((run.told.neighbors.len(), run.told.too_many), (8, 1), "still too many: no news");
    run.dump(Step::Neighbors, &there[..8]);
    // What it did not see makes room for what was refused: only the next dump can bring it.
    assert_eq!(run.state.wanted(), None);
    run.notify(&harness::neighbor(libc::RTM_NEWNEIGH, 99, 1));
    assert_eq!(run.told.too_many, 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn any_script_keeps_the_books(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        harness::harness(&bytes);
    }
}
