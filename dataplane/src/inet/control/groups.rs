//! Numbers of groups of next hops. Routes with the same next hops share one: a full table by two providers is 100,000
//! routes, and one group.

use std::collections::HashMap;
use std::sync::Arc;

use crate::inet::tables::Way;

/// Ways, each with its share.
pub(super) type Members = Arc<[(Way, u32)]>;

pub(super) struct GroupNumbers {
    free: Vec<u32>,
    /// Number, and how many routes have it.
    used: HashMap<Members, (u32, usize)>,
}

impl GroupNumbers {
    pub(super) fn new(count: u32) -> GroupNumbers {
        GroupNumbers { free: (0..count).rev().collect(), used: HashMap::new() }
    }

    /// The number of a group for one more route, made known by `fill` if it is new. `None` if none is free.
    pub(super) fn take(&mut self, members: &Members, fill: impl FnOnce(u32)) -> Option<u32> {
        if let Some((number, routes)) = self.used.get_mut(members) {
            *routes += 1;
            return Some(*number);
        }
        let number = self.free.pop()?;
        fill(number);
        self.used.insert(members.clone(), (number, 1));
        Some(number)
    }

    /// A route lets go of its group. After the last one, the number: to be released when no worker looks at it any more.
    pub(super) fn let_go(&mut self, members: &Members) -> Option<u32> {
        let (number, routes) = self.used.get_mut(members)?;
        *routes -= 1;
        if *routes > 0 {
            return None;
        }
        let number = *number;
        self.used.remove(members);
        Some(number)
    }

    pub(super) fn release(&mut self, number: u32) {
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_with_the_same_next_hops_share_a_number() {
        let mut groups = GroupNumbers::new(2);
        let members = |weight| Members::from([(Way::Via(1), 1), (Way::Via(2), weight)]);
        let mut filled = Vec::new();
        let mut take = |groups: &mut GroupNumbers, weight| {
            groups.take(&members(weight), |number| filled.push((number, weight)))
        };
        assert_eq!(
            (take(&mut groups, 1), take(&mut groups, 1), take(&mut groups, 5)),
            (Some(0), Some(0), Some(1))
        );
        assert_eq!(take(&mut groups, 7), None);
        assert_eq!((groups.let_go(&members(1)), groups.let_go(&members(1))), (None, Some(0)));
        // Its number is not free before it is released; who has the same next hops meanwhile needs another one.
        assert_eq!(take(&mut groups, 1), None);
        groups.release(0);
        assert_eq!(take(&mut groups, 7), Some(0));
        assert_eq!(groups.let_go(&members(9)), None);
        assert_eq!(filled, [(0, 1), (1, 5), (0, 7)]);
    }
}
