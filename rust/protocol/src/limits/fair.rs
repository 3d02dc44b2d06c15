//! Fair share: of several owners with ready tasks the one goes first whose tasks have taken least time of workers.
//!
//! The time that running tasks have taken so far counts. An owner without tasks saves nothing up: when it comes back, it
//! stands where the one stood that was served last.

/// What the owners have had.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    owners: Vec<Owner>,
    /// Batches so far.
    batches: u64,
    /// What the owner had had that was served last.
    level_ns: u64,
    /// There was no choice for a while: the first owner was alone.
    pub(super) are_old: bool,
}

#[derive(Clone, Debug, Default)]
struct Owner {
    consumed_ns: u64,
    /// What its running tasks have taken so far.
    running_ns: u64,
    /// How many batches there were when it last had ready or running tasks.
    seen: Option<u64>,
}

impl Shares {
    /// A new owner takes this number.
    pub(super) fn open(&mut self, owner: u32) {
        if self.owners.len() <= owner as usize {
            self.owners.resize_with(owner as usize + 1, Owner::default);
        }
        self.owners[owner as usize] = Owner::default();
    }

    /// Tasks of the owner took a worker this time.
    #[inline]
    pub(super) fn charge(&mut self, owner: u32, ns: u64) {
        if let Some(owner) = self.owners.get_mut(owner as usize) {
            owner.consumed_ns += ns;
        }
    }

    /// Forgets what runs, to be told anew.
    pub(super) fn clear_running(&mut self) {
        self.owners.iter_mut().for_each(|owner| owner.running_ns = 0);
        if std::mem::take(&mut self.are_old) {
            self.level_ns = self.level_ns.max(self.taken_ns(super::FIRST_OWNER));
            self.owners.iter_mut().for_each(|owner| owner.seen = None);
        }
    }

    /// A worker has been running tasks of the owner for this time.
    pub(super) fn note_running(&mut self, owner: u32, ns: u64) {
        self.note_present(owner);
        if let Some(owner) = self.owners.get_mut(owner as usize) {
            owner.running_ns += ns;
        }
    }

    /// The owner has ready or running tasks now.
    pub(super) fn note_present(&mut self, owner: u32) {
        let Some(owner) = self.owners.get_mut(owner as usize) else { return };
        if owner.seen.is_none_or(|seen| seen + 1 < self.batches) {
            owner.consumed_ns = owner.consumed_ns.max(self.level_ns);
        }
        owner.seen = Some(self.batches);
    }

    /// What the owner has had.
    pub(super) fn taken_ns(&self, owner: u32) -> u64 {
        self.owners.get(owner as usize).map_or(0, |owner| owner.consumed_ns + owner.running_ns)
    }

    /// The owner was served.
    pub(super) fn note_served(&mut self, owner: u32) {
        self.batches += 1;
        self.level_ns = self.level_ns.max(self.taken_ns(owner));
        if let Some(owner) = self.owners.get_mut(owner as usize) {
            owner.seen = Some(self.batches);
        }
    }
}
