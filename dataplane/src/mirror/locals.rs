//! The kernel's own addresses, as the XDP programs of all ports know them: packets for these are left to it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use af_xdp::Error;
use af_xdp::program::{LOCALS_MAX, Redirect};

/// The addresses, and the programs that are to know them. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Locals(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    addresses: BTreeSet<IpAddr>,
    programs: Vec<Weak<Redirect>>,
}

impl std::fmt::Debug for Locals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Locals").field(&self.len()).finish()
    }
}

impl Locals {
    /// Tells a program all addresses, and from now on each change, as long as it lives.
    ///
    /// # Errors
    /// When it has no room for them.
    pub fn join(&self, program: &Arc<Redirect>) -> Result<(), Error> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.addresses.iter().try_for_each(|address| program.insert_local(*address))?;
        inner.programs.retain(|program| program.strong_count() > 0);
        inner.programs.push(Arc::downgrade(program));
        Ok(())
    }

    /// An address came. No program knows it if there is an error.
    ///
    /// # Errors
    /// When there are as many already as a program has room for, or the kernel refuses it; in words.
    pub fn insert(&self, address: IpAddr) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.addresses.contains(&address) {
            return Ok(());
        }
        if inner.addresses.len() == LOCALS_MAX as usize {
            return Err(format!("the kernel has more than {LOCALS_MAX} addresses"));
        }
        let programs: Vec<_> = inner.programs.iter().filter_map(Weak::upgrade).collect();
        if let Err(e) = programs.iter().try_for_each(|program| program.insert_local(address)) {
            programs.iter().for_each(|program| _ = program.remove_local(address));
            return Err(e.to_string());
        }
        inner.addresses.insert(address);
        Ok(())
    }

    /// An address went.
    pub fn remove(&self, address: IpAddr) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.addresses.remove(&address);
        for program in inner.programs.iter().filter_map(Weak::upgrade) {
            if let Err(e) = program.remove_local(address) {
                eprintln!("nke: {e}");
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).addresses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_addresses_than_a_program_takes() {
        let locals = Locals::default();
        let address = |i: u32| IpAddr::V4((0x0a00_0000 + i).into());
        assert!((0..LOCALS_MAX).all(|i| locals.insert(address(i)).is_ok()));
        assert!(locals.insert(address(0)).is_ok(), "it is there already");
        assert!(locals.insert(address(LOCALS_MAX)).is_err());
        locals.remove(address(7));
        assert!(locals.insert(address(LOCALS_MAX)).is_ok());
        assert_eq!(locals.len(), LOCALS_MAX as usize);
    }
}
