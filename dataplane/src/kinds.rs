//! The registered kinds of filters, whatever their layer. On the control thread only.

use std::sync::Arc;

use nke_filters::{
    Args, AttachEnv, FilterKind, Hold, HoldKind, Host, Ifnet, IfnetEnv, IfnetKind, IpAttachEnv, IpFilterKind,
    ProbeEnv, ProbeKind,
};
use nke_mbuf::Owner;

use crate::caught::{caught, guarded};
use crate::control_handle::Point;
use crate::fault::Fault;
use crate::shared::{Shared, host};
use crate::snapshot::Instance;

/// A kind of one layer.
pub enum Kind {
    /// Of interface filters.
    Interface(Arc<dyn FilterKind>),
    /// Of IP filters.
    Ip(Arc<dyn IpFilterKind>),
    /// Of interfaces.
    Ifnet(Arc<dyn IfnetKind>),
    /// Of probes.
    Probe(Arc<dyn ProbeKind>),
}

impl Kind {
    fn name(&self) -> Result<String, Fault> {
        let name = caught(|| match self {
            Kind::Interface(kind) => kind.name().to_owned(),
            Kind::Ip(kind) => kind.name().to_owned(),
            Kind::Ifnet(kind) => kind.name().to_owned(),
            Kind::Probe(kind) => kind.name().to_owned(),
        });
        name.ok_or_else(|| Fault::CreatePanicked("a kind that was asked for its name".into()))
    }

    fn unregistered(&self) {
        guarded(|| match self {
            Kind::Interface(kind) => kind.unregistered(),
            Kind::Ip(kind) => kind.unregistered(),
            Kind::Ifnet(kind) => kind.unregistered(),
            Kind::Probe(kind) => kind.unregistered(),
        });
    }
}

/// One extension's kinds: those of one name.
pub struct Registered {
    /// The name.
    pub name: String,
    /// Who is charged.
    pub owner: Owner,
    /// Being unregistered.
    pub stopping: bool,
    /// One for each layer at most.
    kinds: Vec<Kind>,
    _hold: Hold,
}

/// All of them.
#[derive(Default)]
pub struct Kinds(Vec<Registered>);

impl Kinds {
    /// Adds a kind.
    pub fn register(&mut self, kind: Kind, shared: &Shared) -> Result<(), Fault> {
        let name = kind.name()?;
        if let Some(known) = self.0.iter_mut().find(|k| k.name == name) {
            if known.stopping {
                return Err(Fault::Stopping(name));
            }
            if known.kinds.iter().any(|k| std::mem::discriminant(k) == std::mem::discriminant(&kind)) {
                return Err(Fault::KindExists(name));
            }
            known.kinds.push(kind);
            return Ok(());
        }
        let owner = shared.owner_of(&name);
        let hold = shared.ledger.hold(owner, HoldKind::Registration, name.clone());
        self.0.push(Registered { name, owner, stopping: false, kinds: vec![kind], _hold: hold });
        Ok(())
    }

    /// The extension called `name`.
    pub fn find(&mut self, name: &str) -> Result<&mut Registered, Fault> {
        self.0.iter_mut().find(|k| k.name == name).ok_or_else(|| Fault::NoKind(name.to_owned()))
    }

    /// The extension charged as `owner`.
    pub fn of(&mut self, owner: Owner) -> Option<&mut Registered> {
        self.0.iter_mut().find(|k| k.owner == owner)
    }

    /// Removes an extension whose last instance is gone.
    pub fn remove(&mut self, owner: Owner) {
        if let Some(at) = self.0.iter().position(|k| k.owner == owner) {
            let registered = self.0.remove(at);
            registered.kinds.iter().for_each(Kind::unregistered);
        }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        while let Some(owner) = self.0.first().map(|k| k.owner) {
            self.remove(owner);
        }
    }
}

impl Registered {
    /// Makes an instance for `point`.
    pub fn make(
        &self,
        shared: &Arc<Shared>,
        point: &Point,
        env: impl FnOnce(Owner) -> AttachEnv,
        args: &Args,
    ) -> Result<Instance, Fault> {
        if self.stopping {
            return Err(Fault::Stopping(self.name.clone()));
        }
        let env = env(self.owner);
        let wrong = || Fault::WrongLayer(self.name.clone(), point.name().to_owned());
        let made = match point {
            Point::Interface(_) => {
                let kind = self.kinds.iter().find_map(|k| match k {
                    Kind::Interface(kind) => Some(kind),
                    _ => None,
                });
                let kind = kind.ok_or_else(wrong)?;
                caught(|| kind.create(&env, args).map(Instance::Interface))
            }
            Point::Ip(family) => {
                let kind = self.kinds.iter().find_map(|k| match k {
                    Kind::Ip(kind) => Some(kind),
                    _ => None,
                });
                let kind = kind.ok_or_else(wrong)?;
                let AttachEnv { owner, attachment, cookie, workers, .. } = env;
                let env =
                    IpAttachEnv { host: host(shared), owner, attachment, family: *family, cookie, workers };
                caught(|| kind.create(&env, args).map(|filter| Instance::Ip(*family, filter.hooks(), filter)))
            }
            Point::Path => {
                let kind = self.kinds.iter().find_map(|k| match k {
                    Kind::Probe(kind) => Some(kind),
                    _ => None,
                });
                let kind = kind.ok_or_else(wrong)?;
                let AttachEnv { owner, attachment, cookie, workers, .. } = env;
                let env = ProbeEnv { host: host(shared), owner, attachment, cookie, workers };
                caught(|| kind.create(&env, args).map(Instance::Probe))
            }
        };
        match made {
            Some(made) => made.map_err(Fault::Create),
            None => Err(Fault::CreatePanicked(self.name.clone())),
        }
    }
}

impl Registered {
    /// Makes an interface, embryonic.
    pub fn make_interface(&self, shared: &Arc<Shared>, name: String, args: &Args) -> Result<Ifnet, Fault> {
        if self.stopping {
            return Err(Fault::Stopping(self.name.clone()));
        }
        let kind = self.kinds.iter().find_map(|k| match k {
            Kind::Ifnet(kind) => Some(kind),
            _ => None,
        });
        let kind = kind.ok_or_else(|| Fault::WrongLayer(self.name.clone(), "an interface".into()))?;
        let env = IfnetEnv { host: host(shared), owner: self.owner, name, workers: shared.workers.len() };
        let made = caught(|| kind.create(&env, args));
        let (params, driver) = match made {
            Some(made) => made.map_err(Fault::Create)?,
            None => return Err(Fault::CreatePanicked(self.name.clone())),
        };
        shared.ifnet_allocate(self.owner, params, driver).map_err(Fault::Interface)
    }
}
