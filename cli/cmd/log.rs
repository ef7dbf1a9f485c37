//! `p2pkgs log`

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::sanitize;

/// How often a log that is followed is looked at again.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Longest line that is shown whole, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Print the log of a package's last build
///
/// Escape sequences of the build are taken out; the file itself, whose path is shown with `-v`, has them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package of the tree
    #[arg(value_name = "PKG")]
    package: String,
    /// Go on until the build ends
    #[arg(short, long)]
    follow: bool,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let name = tree.package_name(&args.package)?;
    let graph = context.graph(&mut tree, std::slice::from_ref(&name))?;
    let pkghash = graph.pkghash(graph.roots()[0]);
    let path = builder::log_path(&context.home()?.path("logs"), &pkghash);
    context.ui.detail(path.display());
    let log = match File::open(&path) {
        Ok(log) => BufReader::new(log),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(
                Exit::NotFound,
                format!("`{name}` as it is now was not built here"),
            )
            .hint("only what is built has a log, what is fetched has none"));
        }
        Err(error) => return Err(Failure::from(error)),
    };
    let mut reader = LogReader {
        log,
        partial: Vec::new(),
    };
    // What is written between the last look at the lock and the last reading is read by it.
    while args.follow && is_being_written(reader.log.get_ref()) && !context.interrupt.is_set() {
        reader.print(context)?;
        std::thread::sleep(FOLLOW_EVERY);
    }
    reader.print(context)?;
    reader.print_rest(context)?;
    if context.interrupt.is_set() {
        Err(Failure::interrupted())
    } else {
        Ok(())
    }
}

/// A running build holds a lock on its log.
fn is_being_written(log: &File) -> bool {
    let busy =
        flock(log, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK);
    if !busy {
        // Closing would do it too, but the file stays open and the next build must not meet our lock.
        let _ = flock(log, FlockOperation::Unlock);
    }
    busy
}

/// Shows whole lines as they come.
struct LogReader {
    log: BufReader<File>,
    partial: Vec<u8>,
}

impl LogReader {
    fn print(&mut self, context: &Context) -> CmdResult {
        loop {
            let room = LINE_BYTES_MAX
                .saturating_sub(self.partial.len() as u64)
                .max(1);
            let read = (&mut self.log)
                .take(room)
                .read_until(b'\n', &mut self.partial)?;
            if read == 0 {
                return Ok(());
            }
            let whole = self.partial.ends_with(b"\n");
            if whole || self.partial.len() as u64 >= LINE_BYTES_MAX {
                self.print_rest(context)?;
            }
        }
    }

    fn print_rest(&mut self, context: &Context) -> CmdResult {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
        context.ui.data(sanitize::line(&text))
    }
}
