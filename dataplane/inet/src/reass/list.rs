//! Doubly linked lists through an array: what is first in line is found, and anything taken out, in constant time.

/// No index.
pub(crate) const NONE: u32 = u32::MAX;

/// An element's neighbours in one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    pub(crate) const UNLINKED: Link = Link { prev: NONE, next: NONE };

    /// The element after this one.
    pub(crate) fn next(self) -> Option<u32> {
        (self.next != NONE).then_some(self.next)
    }
}

/// An array whose elements have links.
pub(crate) trait Linked {
    /// The links of element `at`.
    fn link(&mut self, at: u32) -> &mut Link;
}

/// First and last of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { head: NONE, tail: NONE };

    /// The element longest in the list.
    #[inline]
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    #[inline]
    pub(crate) fn push_back(&mut self, links: &mut impl Linked, at: u32) {
        *links.link(at) = Link { prev: self.tail, next: NONE };
        match self.tail {
            NONE => self.head = at,
            tail => links.link(tail).next = at,
        }
        self.tail = at;
    }

    #[inline]
    pub(crate) fn remove(&mut self, links: &mut impl Linked, at: u32) {
        let Link { prev, next } = std::mem::replace(links.link(at), Link::UNLINKED);
        match prev {
            NONE => self.head = next,
            prev => links.link(prev).next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => links.link(next).prev = prev,
        }
    }
}
