//! Whether what was once read of a package's folder still holds, told by the times of its files alone.
//!
//! A recipe is remembered with the [`Facts`] of every file and folder it is made of. While all of them are the same, the
//! bytes are taken to be the same. That is right because of three rules:
//!
//! * **The time of change counts.** Nobody can set a file's ctime: who sets the modification time back (`touch -r`, `cp -p`,
//!   `rsync -t`, an archive unpacked) changes it. The inode tells one file from another that was put in its place, a
//!   folder's own facts tell of names that came and went.
//! * **Only what has settled is remembered.** A kernel counts time in ticks: a file can change twice within one and bear one
//!   time. So all times must be older than [`SETTLED_AFTER`] when the reading begins; whatever happens to the file from
//!   then on gives it another time. What is younger, or from the future, is read again by each command.
//! * **The facts are taken before and after the reading**, and must be the same.
//!
//! Not noticed is: a change that leaves no trace in the inode (the disk written to past the file system; bytes lost or
//! restored by a crash that kept the times), and one made while the clock is set back so exactly that both times are the
//! remembered ones to the nanosecond. Nothing worse comes of it than an older recipe: what is hashed is what is built.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a file must have been at rest. The coarsest ticks are two seconds long; and a page that a program has mapped
/// gets no new time before the kernel has written it back, which it does after some thirty seconds.
pub const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// What the file system says of one file or folder, beside the device, which is the same for all of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The number of the inode.
    pub inode: u64,
    /// Kind and permissions.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// When the bytes were changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything was changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// The facts of a file or folder of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its path below the package's folder; empty for the folder itself.
    pub path: String,
    /// What was seen there.
    pub facts: Facts,
}

/// All that a recipe is made of, the package's own folder first.
pub type Survey = Vec<Seen>;

/// Whether something may be remembered that was read between two surveys, the first of which was begun at `began`.
pub fn may_be_remembered(before: &Survey, after: &Survey, began: SystemTime) -> bool {
    let settled_ns = began
        .checked_sub(SETTLED_AFTER)
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_nanos()).ok());
    let Some(settled_ns) = settled_ns else {
        return false;
    };
    let is_settled = |seen: &Seen| seen.facts.mtime_ns.max(seen.facts.ctime_ns) < settled_ns;
    before == after && before.iter().all(is_settled)
}

/// Whether everything is as it was; `now` says what is seen at a path, `None` if there is nothing that could be believed.
pub fn still_holds<'a>(
    survey: impl IntoIterator<Item = (&'a str, Facts)>,
    mut now: impl FnMut(&str) -> Option<Facts>,
) -> bool {
    let mut survey = survey.into_iter();
    survey.all(|(path, facts)| now(path) == Some(facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn facts() -> Facts {
        Facts {
            inode: 7,
            mode: 0o100_644,
            size: 3,
            mtime_ns: 900 * SECOND_NS,
            ctime_ns: 1000 * SECOND_NS,
        }
    }

    fn survey(facts: Facts) -> Survey {
        let seen = |path: &str, facts| Seen {
            path: path.to_owned(),
            facts,
        };
        vec![seen("", self::facts()), seen("build", facts)]
    }

    #[test]
    fn what_may_have_changed_within_a_tick_of_the_reading_is_not_remembered() {
        let survey = survey(facts());
        assert!(may_be_remembered(&survey, &survey, at(1061)));
        // The youngest time decides, to the nanosecond.
        assert!(!may_be_remembered(&survey, &survey, at(1060)));
        assert!(!may_be_remembered(&survey, &survey, at(1000)));
    }

    #[test]
    fn times_from_the_future_and_clocks_before_1970_are_not_relied_on() {
        let future = survey(Facts {
            mtime_ns: i64::MAX,
            ..facts()
        });
        assert!(!may_be_remembered(&future, &future, at(5000)));
        assert!(!may_be_remembered(
            &survey(facts()),
            &survey(facts()),
            at(10)
        ));
    }

    #[test]
    fn every_single_fact_counts() {
        let before = survey(facts());
        let changed = [
            Facts {
                inode: 8,
                ..facts()
            },
            Facts {
                mode: 0o100_755,
                ..facts()
            },
            Facts { size: 4, ..facts() },
            Facts {
                mtime_ns: 901 * SECOND_NS,
                ..facts()
            },
            // The modification time was set back.
            Facts {
                ctime_ns: 1000 * SECOND_NS + 1,
                ..facts()
            },
        ];
        let holds = |after: &Survey| {
            let find = |path: &str| after.iter().find(|seen| seen.path == path);
            let remembered = before.iter().map(|seen| (&seen.path[..], seen.facts));
            still_holds(remembered, |path| find(path).map(|seen| seen.facts))
        };
        assert!(holds(&before));
        for facts in changed {
            let after = survey(facts);
            assert!(!may_be_remembered(&before, &after, at(5000)), "{facts:?}");
            assert!(!holds(&after), "{facts:?}");
        }
        let gone = vec![before[0].clone()];
        assert!(!may_be_remembered(&before, &gone, at(5000)));
        assert!(!holds(&gone));
    }
}
