//! How two outputs differ inside their files: `diffoscope` knows, where the host has it.
//!
//! It takes apart whatever a build made, with dozens of programs, so it runs in a sandbox: the host's programs read-only, no
//! network, no home, and nothing to write to but memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::chain;
use crate::hosted::{HOST_PATH, machine_mounts};
use crate::limits::{Ending, Limits};
use crate::process::run;
use crate::realise::Context;
use crate::request::{BuildRequest, Mount, check_env};
use crate::root::Input;
use crate::surroundings::Surroundings;

/// The program.
const PROGRAM: &str = "diffoscope";
/// What is read of its report, in bytes: several screens; it is asked to keep to that itself.
const REPORT_BYTES_MAX: u64 = 64 << 10;
/// Lines that are told.
const LINES_MAX: usize = 200;
/// How long it may take: minutes for a compiler.
const WALL: Duration = Duration::from_secs(600);

/// What it says of an output of the store and another one, one line each; nothing where it is not installed.
pub(crate) fn explain(context: &Context<'_>, first: &Input, second: &Path) -> Vec<String> {
    let Some(program) = context.sandbox.program(PROGRAM) else {
        return Vec::new();
    };
    match report(context, &program, first, second) {
        Ok(report) => lines(&report),
        Err(why) => vec![format!("{PROGRAM} said nothing: {why}")],
    }
}

fn report(
    context: &Context<'_>,
    program: &Path,
    first: &Input,
    second: &Path,
) -> Result<Vec<u8>, String> {
    let blob = context.store.open_blob(&first.blob.sha256);
    let blob = blob.map_err(|error| chain(&error))?;
    let blob = blob.ok_or("the first output is gone")?;
    let sandbox = context.sandbox.get().map_err(|error| chain(&error))?;
    let mut request = request(program, blob.path(), second)?;
    sandbox.mask(&mut request);
    let limits = Limits {
        wall: WALL,
        silence: WALL,
        log_bytes_max: REPORT_BYTES_MAX,
        ..Limits::default()
    };
    let mut report = Vec::new();
    let mut keep = |text: &[u8]| report.extend_from_slice(text);
    let cancelled = || context.observer.cancelled();
    match run(sandbox, &request, None, &limits, &mut keep, &cancelled) {
        // It found what is different.
        Ok(Ending::Exited(1) | Ending::LoggedTooMuch(_)) => Ok(report),
        Ok(ending) => Err(format!("it {ending}")),
        Err(error) => Err(chain(&error)),
    }
}

fn request(program: &Path, first: &Path, second: &Path) -> Result<BuildRequest, String> {
    let (at_first, at_second) = ("/compared/first.tar.zst", "/compared/second.tar.zst");
    let mut mounts = machine_mounts().map_err(|error| chain(&error))?;
    mounts.push(Mount::Tmpfs { at: "/tmp".into() });
    for (from, at) in [
        (program, program),
        (first, Path::new(at_first)),
        (second, Path::new(at_second)),
    ] {
        mounts.push(Mount::ReadOnly {
            from: from.to_owned(),
            at: at.to_owned(),
        });
    }
    mounts.extend([Mount::Proc, Mount::Dev]);
    let mut env = check_env();
    env.insert("PATH".into(), HOST_PATH.into());
    env.insert("HOME".into(), "/tmp".into());
    env.insert("LC_ALL".into(), "C.UTF-8".into());
    let bytes_max = REPORT_BYTES_MAX.to_string();
    let options = ["--text", "-", "--max-text-report-size", &bytes_max];
    let mut command = vec![program.as_os_str().to_owned()];
    command.extend(options.map(Into::into));
    command.extend([at_first, at_second].map(Into::into));
    Ok(BuildRequest {
        surroundings: Surroundings::Usual,
        interactive: false,
        in_memory: None,
        stack: None,
        mounts,
        env,
        directory: PathBuf::from("/tmp"),
        command,
    })
}

fn lines(report: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(report);
    let mut lines: Vec<_> = text
        .lines()
        .take(LINES_MAX + 1)
        .map(str::to_owned)
        .collect();
    if lines.len() > LINES_MAX {
        lines.truncate(LINES_MAX);
        lines.push("and more".to_owned());
    }
    lines
}
