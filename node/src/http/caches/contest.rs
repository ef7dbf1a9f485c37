//! Which of several doors sends a file: a value without IO or clock, so that its rules are tested without waiting.
//!
//! A door is *proven* when a chunk that it sent was right, and then it is alone. Until somebody is, two send the same chunk: who
//! hangs, breaks off or lies is overtaken without being waited for, and what comes twice is a chunk. A door that goes silent, or
//! slow, is challenged by the next one; who delivers the next chunk goes on, the others stop and stand in reserve. Every challenge
//! that was not needed doubles the patience, so that on a slow line little comes twice.

use std::time::{Duration, Instant};

/// Doors that send the same chunk while none is proven.
const ABREAST: usize = 2;
/// How long a door may send nothing before it is challenged, unless it is known to be quicker: longer than a connection across
/// the world takes, shorter than a person's patience.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(500);
/// The same for a door that answered quickly before: longer than a disk or a busy processor keeps back an answer.
pub(super) const SILENCE_MIN: Duration = Duration::from_millis(50);
/// Over which time the rate of the one that sends is looked at.
const WINDOW: Duration = Duration::from_secs(3);
/// What comes well, in bytes a second: a package of ordinary size in some seconds.
const WELL_BYTES_PER_SEC: u64 = 1 << 20;
/// How long a door that failed rests before its second chance.
const REST: Duration = Duration::from_secs(1);
/// Times that a door may fail without having sent a right chunk since it was started. That another one was faster is no failure:
/// whoever has not failed is there until the end.
const FAILURES_MAX: u32 = 2;

/// The doors in the order in which they are to be tried.
#[derive(Debug)]
pub(super) struct Contest {
    doors: Vec<Door>,
    /// Whose chunks have been right and who goes on.
    leader: Option<usize>,
    /// How many challenges were not needed.
    unneeded: u32,
    /// Since when the leader's rate is looked at, and what had come then.
    window: (Instant, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Over,
}

#[derive(Debug)]
struct Door {
    state: State,
    silence: Duration,
    is_proven: bool,
    bytes: u64,
    /// When it was started, or last sent something.
    heard: Instant,
    not_before: Instant,
    /// Whether it has sent a right chunk since it was started.
    has_got_on: bool,
    /// Failures since its last right chunk.
    failures: u32,
    /// A higher number is tried later.
    rank: u32,
}

impl Contest {
    /// `doors`: how long each may be silent, and whether it is proven.
    pub(super) fn new(doors: &[(Duration, bool)], now: Instant) -> Self {
        let door = |(rank, (silence, is_proven)): (usize, &(Duration, bool))| Door {
            state: State::Waiting,
            silence: *silence,
            is_proven: *is_proven,
            bytes: 0,
            heard: now,
            not_before: now,
            has_got_on: false,
            failures: 0,
            rank: rank as u32,
        };
        Self {
            doors: doors.iter().enumerate().map(door).collect(),
            leader: None,
            unneeded: 0,
            window: (now, 0),
        }
    }

    /// The door that is to start now, if any.
    pub(super) fn poll_start(&mut self, now: Instant) -> Option<usize> {
        if !self.is_due(now) {
            return None;
        }
        let waiting = self.doors.iter().enumerate();
        let waiting = waiting.filter(|(_, d)| d.state == State::Waiting && d.not_before <= now);
        let (next, _) = waiting.min_by_key(|(_, door)| door.rank)?;
        let door = &mut self.doors[next];
        (door.state, door.heard, door.bytes) = (State::Running, now, 0);
        door.has_got_on = false;
        self.look_anew(now);
        Some(next)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let running = || {
            self.doors
                .iter()
                .filter(|door| door.state == State::Running)
        };
        let patience = self.patience();
        let lively = running()
            .filter(|door| !door.is_silent(patience, now))
            .count();
        let Some(leader) = self.leader else {
            let is_proven = running().any(|door| door.is_proven && !door.is_silent(patience, now));
            return lively < if is_proven { 1 } else { ABREAST };
        };
        lively == 0 || (lively == 1 && running().count() == 1 && self.is_slow(leader, now))
    }

    /// By how much patience has grown.
    fn patience(&self) -> u32 {
        1 << self.unneeded.min(16)
    }

    fn is_slow(&mut self, leader: usize, now: Instant) -> bool {
        let window = WINDOW * self.patience();
        let (since, bytes) = self.window;
        if now.saturating_duration_since(since) < window {
            return false;
        }
        let came = self.doors[leader].bytes.saturating_sub(bytes);
        self.look_anew(now);
        (came as f64) < WELL_BYTES_PER_SEC as f64 * window.as_secs_f64()
    }

    fn look_anew(&mut self, now: Instant) {
        let bytes = self.leader.map_or(0, |leader| self.doors[leader].bytes);
        self.window = (now, bytes);
    }

    /// A door has sent so many bytes since it was started.
    pub(super) fn handle_bytes(&mut self, door: usize, bytes: u64, now: Instant) {
        let door = &mut self.doors[door];
        if bytes > door.bytes {
            (door.bytes, door.heard) = (bytes, now);
        }
    }

    /// A door has sent the next chunk, and it is right. The others, which are to stop now; those of them that had not sent
    /// anything for too long are named with `true`.
    pub(super) fn handle_chunk(&mut self, winner: usize, now: Instant) -> Vec<(usize, bool)> {
        let patience = self.patience();
        let last = self.doors.len() as u32;
        let mut stopped = Vec::new();
        for (number, door) in self.doors.iter_mut().enumerate() {
            if number != winner && door.state == State::Running {
                let is_silent = door.is_silent(patience, now);
                door.rank += if is_silent { last } else { 0 };
                door.state = State::Waiting;
                stopped.push((number, is_silent));
            }
        }
        let is_unneeded = self.leader == Some(winner) && !stopped.is_empty();
        self.unneeded += u32::from(is_unneeded);
        if self.leader != Some(winner) || !stopped.is_empty() {
            self.leader = Some(winner);
            self.look_anew(now);
        }
        let winner = &mut self.doors[winner];
        (winner.is_proven, winner.has_got_on) = (true, true);
        (winner.failures, winner.heard) = (0, now);
        stopped
    }

    /// A door has ended without having sent all; `may_pass`: another time it may go better.
    pub(super) fn handle_end(&mut self, number: usize, may_pass: bool, now: Instant) {
        let last = self.doors.len() as u32;
        let door = &mut self.doors[number];
        if door.state != State::Running {
            return;
        }
        if self.leader == Some(number) {
            self.leader = None;
        }
        // Whoever has got on goes on at once, as with a connection that broke.
        if door.has_got_on {
            door.not_before = now;
        } else {
            door.not_before = now + REST;
            door.failures += 1;
            door.is_proven = false;
        }
        door.rank += last;
        let again = may_pass && door.failures < FAILURES_MAX;
        door.state = if again { State::Waiting } else { State::Over };
    }

    /// Whether nobody is left.
    pub(super) fn is_over(&self) -> bool {
        self.doors.iter().all(|door| door.state == State::Over)
    }
}

impl Door {
    fn is_silent(&self, patience: u32, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= self.silence * patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOBODY: [usize; 0] = [];

    fn contest(doors: usize) -> (Contest, Instant) {
        let now = Instant::now();
        (Contest::new(&vec![(SILENCE_MAX, false); doors], now), now)
    }

    fn starts(contest: &mut Contest, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| contest.poll_start(now)).collect()
    }

    #[test]
    fn two_begin_the_first_right_chunk_decides_and_then_one_is_alone() {
        let (mut contest, now) = contest(4);
        assert_eq!(starts(&mut contest, now), [0, 1]);
        assert_eq!(contest.handle_chunk(1, now + MS), [(0, false)]);
        assert_eq!(starts(&mut contest, now + MS), NOBODY);
        assert!(contest.handle_chunk(1, now + 2 * MS).is_empty());
    }

    #[test]
    fn a_door_that_is_known_to_be_right_begins_alone() {
        let now = Instant::now();
        let mut contest = Contest::new(&[(SILENCE_MIN, true), (SILENCE_MAX, false)], now);
        assert_eq!(starts(&mut contest, now), [0]);
        // Until it hangs.
        assert_eq!(starts(&mut contest, now + SILENCE_MIN), [1]);
        let stopped = contest.handle_chunk(1, now + SILENCE_MIN + MS);
        assert_eq!(stopped, [(0, true)]);
    }

    #[test]
    fn who_fails_or_lies_is_replaced_at_once() {
        let (mut contest, now) = contest(4);
        assert_eq!(starts(&mut contest, now), [0, 1]);
        contest.handle_end(1, false, now);
        assert_eq!(starts(&mut contest, now), [2]);
        contest.handle_end(2, true, now);
        assert_eq!(starts(&mut contest, now), [3]);
        // The one hangs, the other has gone: whoever has a second chance rests before it.
        contest.handle_end(3, false, now);
        assert_eq!(starts(&mut contest, now + REST - MS), NOBODY);
        assert_eq!(starts(&mut contest, now + REST), [2]);
        for door in [0, 2] {
            contest.handle_end(door, true, now + REST);
        }
        assert_eq!(starts(&mut contest, now + 2 * REST), [0]);
        contest.handle_end(0, true, now + 2 * REST);
        assert!(contest.is_over());
    }

    #[test]
    fn those_who_hang_are_joined_by_the_next_after_a_silence() {
        let (mut contest, now) = contest(5);
        assert_eq!(starts(&mut contest, now), [0, 1]);
        contest.handle_bytes(0, 100, now + 400 * MS);
        assert_eq!(starts(&mut contest, now + 500 * MS), [2]);
        assert_eq!(starts(&mut contest, now + 900 * MS), [3]);
        assert_eq!(starts(&mut contest, now + 950 * MS), NOBODY);
    }

    #[test]
    fn a_leader_that_goes_silent_is_challenged_and_what_was_unneeded_grows_patience() {
        let (mut contest, now) = contest(2);
        assert_eq!(starts(&mut contest, now), [0, 1]);
        contest.handle_chunk(0, now);
        assert_eq!(starts(&mut contest, now + 499 * MS), NOBODY);
        assert_eq!(starts(&mut contest, now + 500 * MS), [1]);
        // The leader was only asleep.
        assert_eq!(contest.handle_chunk(0, now + 600 * MS), [(1, false)]);
        assert_eq!(starts(&mut contest, now + 1500 * MS), NOBODY);
        assert_eq!(starts(&mut contest, now + 1600 * MS), [1]);
        // Now it is not.
        assert_eq!(contest.handle_chunk(1, now + 1700 * MS), [(0, true)]);
    }

    #[test]
    fn who_was_only_slower_is_there_until_the_end() {
        let (mut contest, mut now) = contest(2);
        assert_eq!(starts(&mut contest, now), [0, 1]);
        // Both fall asleep in turns, again and again.
        for turn in 0..20 {
            let (sleeper, other) = (turn % 2, (turn + 1) % 2);
            contest.handle_chunk(sleeper, now);
            now += SILENCE_MAX * (1 << 16);
            assert_eq!(starts(&mut contest, now), [other]);
            contest.handle_chunk(other, now);
        }
        contest.handle_end(0, false, now);
        assert!(!contest.is_over());
    }

    #[test]
    fn a_slow_leader_is_challenged_and_a_good_one_is_not() {
        let (mut contest, start) = contest(2);
        assert_eq!(starts(&mut contest, start), [0, 1]);
        contest.handle_chunk(0, start);
        let mut bytes = 0;
        let mut second = |contest: &mut Contest, at: u64, rate: u64| {
            bytes += rate;
            let now = start + Duration::from_secs(at);
            contest.handle_bytes(0, bytes, now - 100 * MS);
            starts(contest, now)
        };
        for at in 1..=6 {
            assert_eq!(second(&mut contest, at, 2 << 20), NOBODY);
        }
        assert_eq!(second(&mut contest, 7, 1 << 10), NOBODY);
        assert_eq!(second(&mut contest, 8, 1 << 10), NOBODY);
        assert_eq!(second(&mut contest, 9, 1 << 10), [1]);
        assert_eq!(second(&mut contest, 13, 1 << 10), NOBODY);
    }

    #[test]
    fn a_door_that_breaks_off_after_good_chunks_goes_on_when_it_is_alone() {
        let (mut contest, now) = contest(1);
        for _ in 0..5 {
            assert_eq!(starts(&mut contest, now), [0]);
            contest.handle_chunk(0, now);
            contest.handle_end(0, true, now);
        }
        assert!(!contest.is_over());
    }
}
