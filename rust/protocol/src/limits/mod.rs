//! Limits: what tasks take while they run, which worker may have it, and whose tasks go first.
//!
//! Shared by the broker and by the engine that runs tasks in the client's process. It is told of leases and their ends, and
//! says which classes of tasks a worker may be given next ([`choice`]).

mod choice;
mod classes;
mod fair;
mod grants;
mod offer;

pub use choice::Group;
pub use classes::{ANY_CLASS, Asker, Class, FIRST_OWNER};
pub use offer::{Amount, Demand, Offer, Thing};

use choice::Candidate;
use classes::Classes;
use fair::Shares;
use grants::Grants;
use headrace_kernel::ClassId;

/// Things of which machines that may come can have some: whoever asks for a new one makes it known.
const THINGS_MAX: usize = 256;

/// Classes, grants and shares. See the module's text.
#[derive(Clone, Debug)]
pub struct Limits {
    workers: u32,
    /// How many of them there are now.
    present: u32,
    offer: Offer,
    classes: Classes,
    grants: Grants,
    shares: Shares,
    /// Batches that were leased by choice.
    batches: u64,
    found: Vec<Candidate>,
    /// Per thing: the class that waits for it and lets nobody else have any.
    reserved: Vec<Option<(u32, ClassId)>>,
}

impl Limits {
    /// What so many workers offer, of which nobody has anything yet.
    pub fn new(workers: u32, offer: Offer) -> Self {
        Self::with_spares(workers, 0, offer)
    }

    /// The same, where so many further workers may stand in for others that wait. Nothing is pinned to them.
    pub fn with_spares(workers: u32, spares: u32, offer: Offer) -> Self {
        let slots = workers + spares;
        let things = offer.things().len();
        let mut shares = Shares::default();
        shares.open(FIRST_OWNER);
        Limits {
            classes: Classes::new(slots),
            grants: Grants::new(slots, things),
            shares,
            batches: 0,
            found: Vec::new(),
            reserved: vec![None; things],
            workers,
            present: workers,
            offer,
        }
    }

    /// So many of the workers are there now, which share what is ready.
    pub fn set_present(&mut self, workers: u32) {
        self.present = workers.max(1);
    }

    /// What there is.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Whether all tasks are of one owner and take nothing, so that there is nothing to choose.
    #[inline]
    pub fn are_plain(&self) -> bool {
        self.classes.are_plain()
    }

    /// What a task comes to that is pinned to a worker, or to none, and asks for these resources and tags.
    ///
    /// # Errors
    /// No worker can ever run it: what it asks for, and the best offer.
    pub fn demand<'a>(
        &mut self,
        pin: u32,
        resources: impl IntoIterator<Item = (&'a str, u64), IntoIter: Clone>,
        tags: impl IntoIterator<Item = &'a str>,
    ) -> Result<Demand, String> {
        let resources = resources.into_iter();
        if self.offer.grows {
            for (name, _) in resources.clone() {
                if !self.offer.has_resource(name) && self.offer.things().len() < THINGS_MAX {
                    self.put_on_machine(0, name, 0)?;
                }
            }
        }
        self.offer.demand(self.workers, pin, resources, tags)
    }

    /// The class of such tasks; it stays until [`Limits::leave_class`] was called as often.
    pub fn enter_class(&mut self, asker: Asker, pin: u32, demand: Demand) -> ClassId {
        self.classes.enter(asker, pin, demand)
    }

    /// Somebody who entered a class does not need it any more.
    pub fn leave_class(&mut self, class: ClassId) {
        self.classes.leave(class);
    }

    /// Whether the users of a class are counted: the others are always there.
    pub fn is_counted(&self, class: ClassId) -> bool {
        self.classes.is_counted(class)
    }

    /// A class that somebody uses.
    pub fn class(&self, class: ClassId) -> Option<&Class> {
        self.classes.get(class)
    }

    /// What all workers hold of a thing.
    pub fn used(&self, thing: u32) -> u64 {
        self.grants.used(thing)
    }

    /// Workers without leases are on another machine from now on; the first one, 0, is the broker's own.
    pub fn place(&mut self, workers: impl IntoIterator<Item = u32>, machine: usize) {
        workers.into_iter().for_each(|worker| self.grants.place(worker, machine));
    }

    /// A machine has so much of a resource for its workers.
    ///
    /// # Errors
    /// The resource is counted otherwise already.
    pub fn put_on_machine(&mut self, machine: usize, name: &str, amount: u64) -> Result<(), String> {
        if self.offer.put_on_machine(machine, name, amount)? {
            self.grants.add_thing();
            self.reserved.push(None);
        }
        Ok(())
    }

    /// A machine is gone, with what it had.
    pub fn drop_machine(&mut self, machine: usize) {
        self.offer.drop_machine(machine);
    }

    /// The most that is left of a thing in one place.
    pub fn most_left(&self, thing: u32) -> u64 {
        self.grants.most_left(self.offer.things(), thing)
    }

    /// Everything that all workers share: name, whether it is a tag, how much is held, and how much there is.
    pub fn shared(&self) -> impl Iterator<Item = (&str, bool, u64, u64)> + '_ {
        let shared = (0..).zip(self.offer.things()).filter(|(_, thing)| !thing.is_owned());
        shared.map(|(number, thing)| (&*thing.name, thing.is_tag, self.used(number), thing.sum()))
    }

    /// The class that waits for a thing and lets nobody else have any.
    pub fn reserved_for(&self, thing: u32) -> Option<ClassId> {
        self.reserved[thing as usize].map(|(_, class)| class)
    }

    /// What one worker holds of each thing.
    pub fn held(&self, worker: u32) -> &[u64] {
        self.grants.held(worker)
    }

    /// Whether the worker may run tasks of the class and could have what they take now.
    pub fn may_take(&self, worker: u32, class: ClassId) -> bool {
        let Some(class) = self.classes.get(class) else { return false };
        self.suits(worker, class) && self.grants.fits(self.offer.things(), worker, &class.demand)
    }

    /// Whether the worker may run tasks of the class, now or later.
    pub fn suits_class(&self, worker: u32, class: ClassId) -> bool {
        self.classes.get(class).is_some_and(|class| self.suits(worker, class))
    }

    /// The same as [`Limits::may_take`], once another worker has no lease of the class any more.
    pub fn may_take_over(&self, worker: u32, class: ClassId, from: u32) -> bool {
        let Some(entry) = self.classes.get(class) else { return false };
        self.suits(worker, entry) && self.grants.would_fit(&self.classes, self.offer.things(), worker, class, from)
    }

    /// A worker was leased a task of the class without a choice.
    pub fn note_lease(&mut self, worker: u32, class: ClassId) {
        self.note_leases(worker, class, 1);
    }

    /// So many leases of the class began.
    fn note_leases(&mut self, worker: u32, class: ClassId, leases: u32) {
        if let Some(entry) = self.classes.get(class).filter(|entry| !entry.demand.is_empty()) {
            self.grants.lease(self.offer.things(), worker, class, &entry.demand, leases);
        }
    }

    /// A lease of the class is over. [`Limits::settle`] ends the grant.
    #[inline]
    pub fn note_end(&mut self, worker: u32, class: ClassId) {
        self.grants.unlease(worker, class);
    }

    /// Ends the grants of workers without leases for them, where `may_end` says so of the worker.
    #[inline]
    pub fn settle(&mut self, may_end: impl FnMut(u32) -> bool) {
        if self.grants.are_loose() {
            self.grants.settle(&self.classes, self.offer.things(), may_end);
        }
    }

    /// The worker's process is gone, and all its leases.
    pub fn lose_worker(&mut self, worker: u32) {
        self.grants.clear(&self.classes, self.offer.things(), worker);
    }

    fn suits(&self, worker: u32, class: &Class) -> bool {
        (class.pin == headrace_wire::ANY_WORKER || class.pin == worker)
            && self.offer.suits(worker, self.grants.machine(worker), &class.demand)
    }
}

/// Whose turn it is.
impl Limits {
    /// Somebody else submits under this number from now on.
    pub fn open_owner(&mut self, owner: u32) {
        self.shares.open(owner);
    }

    /// Tasks of the owner took a worker this time.
    #[inline]
    pub fn charge(&mut self, owner: u32, ns: u64) {
        self.shares.charge(owner, ns);
    }

    /// Work is given out without a choice, as there is none: what others than the first owner have had counts no more.
    #[inline]
    pub fn note_no_choice(&mut self) {
        self.shares.are_old = true;
    }

    /// Forgets which tasks run; [`Limits::note_running`] tells it anew.
    pub fn clear_running(&mut self) {
        self.shares.clear_running();
    }

    /// A worker has been running tasks of the owner for this time, which is not charged yet.
    pub fn note_running(&mut self, owner: u32, ns: u64) {
        self.shares.note_running(owner, ns);
    }
}
