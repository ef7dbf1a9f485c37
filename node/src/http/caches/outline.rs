//! The outline of an output: all caches are asked at once for that small file, and the first right one decides.
//!
//! It also shows who is there and honest: whoever gave it is asked first for the bytes, whoever gave a wrong one last.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::Realisation;
use store::car::{CarError, OUTLINE_BYTES_MAX, Outline};
use store::substitute::{FetchError, Progress};

use super::super::HttpSources;
use super::super::page::open_file;
use super::super::transfer::{Failure, read_failure};
use super::contest::SILENCE_MAX;

/// How long an outline is waited for when somebody has said that it has none, or nobody says anything. Without one the file
/// can be had too, only less well.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often who waits looks up.
const SLICE: Duration = Duration::from_millis(5);

/// Gets the outline of an output; `None` when nobody has a right one. The caches are put into a better order.
pub(super) fn get(
    http: &HttpSources,
    doors: &mut Vec<String>,
    realisation: &Realisation,
    progress: &dyn Progress,
) -> Result<Option<Outline>, FetchError> {
    let (sender, answers) = mpsc::sync_channel(doors.len());
    for base in &*doors {
        // On threads that are not waited for, as all who wait for strangers.
        let (http, base, sender) = (http.clone(), base.clone(), sender.clone());
        let realisation = realisation.clone();
        std::thread::spawn(move || {
            let answer = http.outline(&base, &realisation);
            let _ = sender.send((base, answer));
        });
    }
    drop(sender);
    let mut until = Instant::now() + PATIENCE;
    loop {
        if progress.cancelled() {
            return Err(FetchError::Cancelled);
        }
        match answers.recv_timeout(SLICE) {
            Ok((base, Ok(outline))) => {
                http.hosts.note_right(&base);
                doors.retain(|door| *door != base);
                doors.insert(0, base);
                return Ok(Some(outline));
            }
            Ok((base, Err(failure))) => {
                let now = Instant::now();
                match &failure {
                    // Object stores refuse what is not there to those who may not list.
                    Failure::Missing | Failure::Refused(_) => until = until.min(now + SILENCE_MAX),
                    Failure::Unreachable(_) => {
                        http.hosts.note_silent(&base, now);
                        doors.retain(|door| *door != base);
                    }
                    failure => {
                        tracing::info!(url = base, ?failure, "no outline");
                        http.hosts.note_failed(&base, now);
                        doors.retain(|door| *door != base);
                        doors.push(base);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

impl HttpSources {
    /// The outline that one cache gives.
    fn outline(&self, base: &str, realisation: &Realisation) -> Result<Outline, Failure> {
        let Realisation {
            pkghash,
            output,
            size,
            ..
        } = realisation;
        let url = format!("{base}/{pkghash}.outline");
        let read = match url.strip_prefix("file://") {
            Some(path) => Outline::read(open_file(path)?, output, *size),
            None => {
                let body = self.get(
                    &url,
                    "application/vnd.ipld.car",
                    Some(self.deadlines.request),
                );
                Outline::read(body?, output, *size)
            }
        };
        match read {
            Ok(Some(outline)) => Ok(outline),
            // Of another output of the same package, or longer than we read.
            Ok(None) => Err(Failure::Missing),
            Err(CarError::Read(error)) => Err(read_failure(error).into_failure()),
            Err(error) => Err(Failure::Invalid {
                expected: format!("an outline of at most {OUTLINE_BYTES_MAX} bytes"),
                got: error.to_string(),
            }),
        }
    }
}
