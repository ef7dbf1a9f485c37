//! Who may run how many jobs: the accounts, and what is to be moved next. No IO and no clock, so that it can be tested.
//!
//! A build owns one job from its start to its end, its *seat*: whatever becomes of all others, it can go on, so nothing
//! ever waits in a circle. Everything beyond that is *lent*: it lies in the build's pipe until a `make` takes it, and what
//! still lies there can be taken back for somebody who needs it. Always: free + seats + lent = all.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a job that was lent may lie in a pipe before it is thought unused: time for a sleeping `make` to wake up.
pub(super) const UNUSED_AFTER: Duration = Duration::from_millis(20);
/// How long a build that did not use what it was lent is asked last: a configure script has no use for a job, and while
/// one is offered to it somebody else goes without.
const RESTS: Duration = Duration::from_millis(250);

/// A build that borrows.
pub(super) type Borrower = u64;

/// The accounts.
#[derive(Debug)]
pub(super) struct Pool {
    free: usize,
    /// Builds that wait for a seat.
    waiting: usize,
    next: Borrower,
    borrowers: BTreeMap<Borrower, Account>,
}

#[derive(Debug, Default)]
struct Account {
    lent: usize,
    /// How many of them lie in the pipe.
    unread: usize,
    lent_at: Duration,
    rests_until: Duration,
    /// It has made up jobs or filled its pipe: it keeps what it has and gets no more.
    is_shunned: bool,
}

impl Account {
    /// Does it use all it has? It may be that it has nothing and wants nothing: that cannot be seen from outside.
    fn is_hungry(&self, now: Duration) -> bool {
        self.unread == 0 && self.rests_until <= now && !self.is_shunned
    }

    fn has_unused(&self, now: Duration) -> bool {
        self.unread > 0 && self.lent_at + UNUSED_AFTER <= now
    }
}

impl Pool {
    /// So many jobs, all free.
    pub(super) const fn new(total: usize) -> Self {
        Self {
            free: total,
            waiting: 0,
            next: 0,
            borrowers: BTreeMap::new(),
        }
    }

    /// One job, for good; false if none is free.
    pub(super) const fn take_seat(&mut self) -> bool {
        let has = self.free > 0;
        if has {
            self.free -= 1;
        }
        has
    }

    pub(super) const fn leave_seat(&mut self) {
        self.free += 1;
    }

    /// Somebody waits for a seat: nothing more is lent until there is one.
    pub(super) const fn wait(&mut self) {
        self.waiting += 1;
    }

    pub(super) const fn end_wait(&mut self) {
        self.waiting -= 1;
    }

    /// Is there a free job for somebody who waits?
    pub(super) const fn can_seat(&self) -> bool {
        self.waiting > 0 && self.free > 0
    }

    /// Is there anything to be shared out anew as time goes by? One build alone gets everything at once.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting > 0 || self.borrowers.len() > 1
    }

    pub(super) fn join(&mut self) -> Borrower {
        let borrower = self.next;
        self.next += 1;
        self.borrowers.insert(borrower, Account::default());
        borrower
    }

    /// A build has ended, no matter how: what it held is free again.
    pub(super) fn part(&mut self, borrower: Borrower) {
        if let Some(account) = self.borrowers.remove(&borrower) {
            self.free += account.lent;
        }
    }

    /// So many jobs came back. Only a build that makes them up returns more than it was lent: the surplus does not count,
    /// and it is not dealt with any more.
    pub(super) fn returned(&mut self, borrower: Borrower, jobs: usize) {
        if let Some(account) = self.borrowers.get_mut(&borrower) {
            let counted = jobs.min(account.lent);
            account.lent -= counted;
            account.unread = account.unread.min(account.lent);
            account.is_shunned |= counted < jobs;
            self.free += counted;
        }
    }

    /// Nothing more is lent to this one, nor taken from it before it ends.
    pub(super) fn shun(&mut self, borrower: Borrower) {
        if let Some(account) = self.borrowers.get_mut(&borrower) {
            account.is_shunned = true;
        }
    }

    pub(super) fn is_shunned(&self, borrower: Borrower) -> bool {
        let account = self.borrowers.get(&borrower);
        account.is_none_or(|account| account.is_shunned)
    }

    /// So many bytes lie in the build's pipe; it may have put some there itself.
    pub(super) fn seen(&mut self, borrower: Borrower, bytes: usize) {
        if let Some(account) = self.borrowers.get_mut(&borrower) {
            account.unread = bytes.min(account.lent);
        }
    }

    /// From whom one job each is to be taken back, for builds that wait for a seat or use all they have.
    pub(super) fn to_take_back(&self, now: Duration) -> Vec<Borrower> {
        let hungry = self.borrowers.values().filter(|a| a.is_hungry(now)).count();
        let wanted = (self.waiting + hungry).saturating_sub(self.free);
        let mut unused: Vec<_> = self
            .borrowers
            .iter()
            .filter(|(_, account)| account.has_unused(now))
            .collect();
        unused.sort_by_key(|(_, account)| std::cmp::Reverse(account.unread));
        unused.into_iter().map(|(b, _)| *b).take(wanted).collect()
    }

    /// One job was read out of a build's pipe.
    pub(super) fn took_back(&mut self, borrower: Borrower, now: Duration) {
        let Some(account) = self.borrowers.get_mut(&borrower) else {
            return;
        };
        if account.lent == 0 {
            return;
        }
        account.lent -= 1;
        account.unread = account.unread.saturating_sub(1);
        self.free += 1;
        if account.unread == 0 {
            account.rests_until = now + RESTS;
        }
    }

    /// Who is lent the next free job; whoever waits for a seat goes before.
    pub(super) fn next_to_lend(&self, now: Duration) -> Option<Borrower> {
        if self.free <= self.waiting {
            return None;
        }
        let rank = |account: &Account| {
            let rests = account.rests_until > now;
            (rests, account.unread > 0, account.lent)
        };
        let others = self.borrowers.iter().filter(|(_, a)| !a.is_shunned);
        let first = others.min_by_key(|(_, account)| rank(account));
        first.map(|(borrower, _)| *borrower)
    }

    pub(super) fn lent(&mut self, borrower: Borrower, now: Duration) {
        if let Some(account) = self.borrowers.get_mut(&borrower) {
            self.free -= 1;
            account.lent += 1;
            account.unread += 1;
            account.lent_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds as the pool sees them: how many jobs each would like to run beside its first.
    struct World {
        pool: Pool,
        total: usize,
        seats: usize,
        now: Duration,
        builds: BTreeMap<Borrower, Build>,
    }

    #[derive(Default)]
    struct Build {
        wants: usize,
        uses: usize,
        in_pipe: usize,
    }

    impl World {
        fn new(total: usize) -> Self {
            Self {
                pool: Pool::new(total),
                total,
                seats: 0,
                now: Duration::ZERO,
                builds: BTreeMap::new(),
            }
        }

        fn start(&mut self, wants: usize) -> Option<Borrower> {
            if !self.pool.take_seat() {
                return None;
            }
            self.seats += 1;
            let borrower = self.pool.join();
            let build = Build {
                wants,
                ..Build::default()
            };
            self.builds.insert(borrower, build);
            Some(borrower)
        }

        fn end(&mut self, borrower: Borrower) {
            self.builds.remove(&borrower);
            self.pool.part(borrower);
            self.pool.leave_seat();
            self.seats -= 1;
        }

        /// What the broker does at each turn, then what the builds do.
        fn turn(&mut self) {
            self.now += UNUSED_AFTER;
            for (borrower, build) in &self.builds {
                self.pool.seen(*borrower, build.in_pipe);
            }
            for borrower in self.pool.to_take_back(self.now) {
                let build = self.builds.get_mut(&borrower).unwrap();
                if build.in_pipe > 0 {
                    build.in_pipe -= 1;
                    self.pool.took_back(borrower, self.now);
                }
            }
            while let Some(borrower) = self.pool.next_to_lend(self.now) {
                self.builds.get_mut(&borrower).unwrap().in_pipe += 1;
                self.pool.lent(borrower, self.now);
            }
            for build in self.builds.values_mut() {
                let taken = build.wants.saturating_sub(build.uses).min(build.in_pipe);
                build.in_pipe -= taken;
                build.uses += taken;
            }
            self.check();
        }

        /// A job of this build ends.
        fn give_back(&mut self, borrower: Borrower) {
            if let Some(build) = self.builds.get_mut(&borrower)
                && build.uses > 0
            {
                build.uses -= 1;
                self.pool.returned(borrower, 1);
                assert!(!self.pool.is_shunned(borrower));
            }
        }

        fn uses(&self, borrower: Borrower) -> usize {
            self.builds[&borrower].uses
        }

        fn check(&self) {
            let out: usize = self.builds.values().map(|b| b.uses + b.in_pipe).sum();
            assert_eq!(self.pool.free + self.seats + out, self.total);
        }
    }

    #[test]
    fn one_build_alone_has_everything_at_once() {
        let mut world = World::new(8);
        let build = world.start(20).unwrap();
        world.turn();
        assert_eq!(world.uses(build), 7);
        assert!(!world.pool.is_contended());
    }

    #[test]
    fn what_one_build_does_not_use_another_gets() {
        let mut world = World::new(8);
        let (idle, busy) = (world.start(0).unwrap(), world.start(20).unwrap());
        (0..20).for_each(|_| world.turn());
        assert!(world.uses(busy) >= 5, "{}", world.uses(busy));
        assert_eq!(world.uses(idle), 0);
        // Now it is the other way round, as jobs end.
        world.builds.get_mut(&idle).unwrap().wants = 20;
        world.builds.get_mut(&busy).unwrap().wants = 0;
        for _ in 0..40 {
            world.give_back(busy);
            world.turn();
        }
        assert!(world.uses(idle) >= 5, "{}", world.uses(idle));
    }

    #[test]
    fn two_builds_that_want_everything_share_it_as_jobs_end() {
        let mut world = World::new(9);
        let first = world.start(20).unwrap();
        world.turn();
        assert_eq!(world.uses(first), 8);
        assert_eq!(world.start(20), None, "every job is in use");
        world.pool.wait();
        world.turn();
        world.give_back(first);
        world.turn();
        assert!(world.pool.can_seat(), "the next that ends makes room");
        world.pool.end_wait();
        let second = world.start(20).unwrap();
        for _ in 0..40 {
            world.give_back(first);
            world.turn();
            world.give_back(second);
            world.turn();
        }
        let (a, b) = (world.uses(first), world.uses(second));
        assert!(a + b == 7 && a.abs_diff(b) <= 1, "{a} and {b}");
    }

    #[test]
    fn whoever_waits_for_a_seat_gets_what_lies_unused() {
        let mut world = World::new(3);
        world.start(0).unwrap();
        world.turn();
        assert!(!world.pool.take_seat());
        world.pool.wait();
        world.turn();
        world.turn();
        assert!(world.pool.can_seat());
    }

    #[test]
    fn jobs_that_are_made_up_do_not_count_and_end_all_dealings() {
        let mut world = World::new(4);
        let liar = world.start(0).unwrap();
        world.turn();
        world.pool.returned(liar, 1000);
        world.pool.seen(liar, 1000);
        world.builds.get_mut(&liar).unwrap().in_pipe = 0;
        world.check();
        assert!(world.pool.is_shunned(liar));
        let honest = world.start(20).unwrap();
        world.turn();
        assert_eq!(world.uses(honest), 2);
        world.end(liar);
        world.end(honest);
        assert_eq!(world.pool.free, 4);
    }

    proptest! {
        #[test]
        fn whatever_happens_no_job_is_made_or_lost(
            total in 1usize..9,
            steps in prop::collection::vec((0u8..5, 0usize..6, 0usize..9), 0..200),
        ) {
            let mut world = World::new(total);
            let pick = |world: &World, n: usize| {
                let ids: Vec<_> = world.builds.keys().copied().collect();
                (!ids.is_empty()).then(|| ids[n % ids.len()])
            };
            for (what, which, number) in steps {
                match (what, pick(&world, which)) {
                    (0, _) => { world.start(number); }
                    (1, Some(build)) => world.end(build),
                    (2, Some(build)) => world.give_back(build),
                    (3, Some(build)) => world.builds.get_mut(&build).unwrap().wants = number,
                    _ => world.turn(),
                }
                world.check();
            }
            // Nobody is left waiting for ever: what nobody uses can be had.
            for build in world.builds.values_mut() {
                build.wants = 0;
            }
            let uses: Vec<_> = world.builds.iter().map(|(id, b)| (*id, b.uses)).collect();
            for (id, uses) in uses {
                (0..uses).for_each(|_| world.give_back(id));
            }
            if world.seats < total {
                world.pool.wait();
                (0..3).for_each(|_| world.turn());
                prop_assert!(world.pool.can_seat());
            }
        }
    }
}
