//! What holds a child's processes together, beside their process group: the account of `orphans`,
//! and a cgroup where there is one. Either may be missing.

use std::io;
use std::process::{Child, Command};

use rustix::process::Pid;

use super::Nursery;
use crate::cgroup::ChildCgroup;
use crate::orphans::Kin;

/// Of one child.
#[derive(Default)]
pub(crate) struct Tether {
    pub(crate) kin: Option<Kin>,
    pub(crate) cgroup: Option<ChildCgroup>,
}

impl Tether {
    /// What the child's environment gets.
    pub(super) fn env(&self) -> Option<(&'static str, String)> {
        self.kin.as_ref().map(Kin::marker)
    }

    pub(super) fn spawn(&mut self, nursery: &Nursery, command: Command) -> io::Result<Child> {
        let Some(kin) = &mut self.kin else {
            return nursery.spawn(command);
        };
        let birth = kin.birth();
        let child = nursery.spawn(command)?;
        birth.born(Pid::from_child(&child));
        Ok(child)
    }

    /// Ends what has left the process group, as far as it can be known now. The child's exit
    /// status has not been taken yet.
    pub(super) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if let Some(kin) = &self.kin {
            kin.forget();
        }
    }

    pub(super) fn is_out_of_memory(&self) -> bool {
        let cgroup = self.cgroup.as_ref();
        cgroup.is_some_and(ChildCgroup::is_out_of_memory)
    }

    /// The exit status has been taken.
    pub(super) fn reaped(&self) {
        if let Some(kin) = &self.kin {
            kin.reaped();
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.end();
        }
    }
}
