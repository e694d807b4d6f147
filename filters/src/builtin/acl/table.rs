//! A list of rules, ready for packets of one family.

use super::classify::{Classifier, Key, MISS, Rule};
use super::list::{Action, FamilyAddress, List, ListError};
use crate::per_worker::{Counter, PerWorker};

/// Most tests of `count` rules: they are looked at one by one.
pub(super) const COUNTING_MAX: usize = 64;

/// The rule a classified entry belongs to, and what it decides.
#[derive(Clone, Copy)]
struct Target {
    rule: u32,
    deny: bool,
}

/// What the rules say of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Permit,
    Deny,
    /// No rule matches.
    Default,
}

/// Made on the control thread, then used by all workers and never changed but for its counters.
pub(super) struct Table<A> {
    list: List,
    classifier: Classifier<A>,
    targets: Vec<Target>,
    /// The tests of `count` rules, with their rules.
    counting: Vec<(u32, Rule<A>)>,
    /// Packets that matched each rule.
    hits: PerWorker<Box<[Counter]>>,
}

impl<A: FamilyAddress> Table<A> {
    pub(super) fn build(text: &str, workers: usize) -> Result<Table<A>, ListError> {
        let list = List::parse(text)?;
        let (mut rules, mut targets, mut counting) = (Vec::new(), Vec::new(), Vec::new());
        for (index, rule) in list.entries::<A>()? {
            let (number, action) = (index as u32, list.rules[index].action);
            if action == Action::Count {
                counting.push((number, rule));
            } else {
                rules.push(rule);
                targets.push(Target { rule: number, deny: action == Action::Deny });
            }
            if counting.len() > COUNTING_MAX {
                let message =
                    format!("the sets and lists of `count` rules make more than {COUNTING_MAX} combinations");
                return Err(list.wrong(
                    index,
                    message,
                    "count fewer, or see how often `permit` and `deny` rules match",
                ));
            }
        }
        // What the parser lets through has no other faults.
        let classifier =
            Classifier::build(&rules).map_err(|e| list.wrong(0, e.to_string(), "shorten the list"))?;
        let hits = PerWorker::new(workers, || list.rules.iter().map(|_| Counter::default()).collect());
        Ok(Table { list, classifier, targets, counting, hits })
    }

    /// Classifies at most as many keys as there are `answers`.
    #[inline]
    pub(super) fn classify(&self, keys: &[Key<A>], answers: &mut [u32]) {
        self.classifier.classify_burst(keys, answers);
    }

    /// What `answer` means for `key`; counts it for worker `worker`.
    #[inline]
    pub(super) fn verdict(&self, key: &Key<A>, answer: u32, worker: usize) -> Verdict {
        let hits = self.hits.of(worker);
        let target = if answer == MISS { None } else { self.targets.get(answer as usize) };
        if !self.counting.is_empty() {
            self.count(key, target.map_or(u32::MAX, |target| target.rule), hits);
        }
        let Some(target) = target else { return Verdict::Default };
        hits[target.rule as usize].add(1);
        if target.deny { Verdict::Deny } else { Verdict::Permit }
    }

    /// The `count` rules in front of rule `end` that `key` matches; each once, however many of its tests do.
    fn count(&self, key: &Key<A>, end: u32, hits: &[Counter]) {
        let mut last = None;
        for (rule, test) in self.counting.iter().take_while(|(rule, _)| *rule < end) {
            if last != Some(rule) && test.matches(key) {
                hits[*rule as usize].add(1);
                last = Some(rule);
            }
        }
    }

    /// Rules as written.
    pub(super) fn len(&self) -> usize {
        self.list.rules.len()
    }

    /// Every rule as written, and how many packets matched it.
    pub(super) fn hits(&self) -> Vec<(String, u64)> {
        let sum = |rule: usize| self.hits.iter().map(|hits| hits[rule].get()).sum();
        (0..self.len()).map(|rule| (self.list.text_of(rule).to_owned(), sum(rule))).collect()
    }

    /// Memory of the classifier, in bytes.
    pub(super) fn len_bytes(&self) -> usize {
        self.classifier.len_bytes()
    }
}
