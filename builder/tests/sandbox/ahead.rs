//! Sources of later packages are fetched while earlier ones are built.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use builder::testing::{World, full, name};
use builder::{Context, ErrorKind, Event, Observer, Phase, realise};
use store::Store;
use store::substitute::{FetchError, Fetched, Progress, SourceFetcher, SourceRequest};

/// Longest wait for what has to happen; only a broken program waits so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// An origin from which the source `late` comes slowly: not before the package `first` is built, or never.
struct SlowOrigin<'a> {
    world: &'a World,
    never: bool,
    late_is_asked_for: Flag,
    first_is_over: Flag,
    was_stopped: AtomicBool,
}

impl<'a> SlowOrigin<'a> {
    fn new(world: &'a World) -> Self {
        Self {
            world,
            never: false,
            late_is_asked_for: Flag::default(),
            first_is_over: Flag::default(),
            was_stopped: AtomicBool::new(false),
        }
    }
}

#[derive(Default)]
struct Flag(Mutex<bool>, Condvar);

impl Flag {
    fn raise(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let waited = self
            .1
            .wait_timeout_while(self.0.lock().unwrap(), DEADLINE, |up| !*up);
        assert!(!waited.unwrap().1.timed_out(), "it never happened");
    }
}

impl SourceFetcher for SlowOrigin<'_> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if request.file_name == "late" {
            self.late_is_asked_for.raise();
            if self.never {
                // As a fetcher does that waits for a network.
                while !progress.cancelled() {
                    std::thread::yield_now();
                }
                self.was_stopped.store(true, Ordering::Relaxed);
                return Err(FetchError::Cancelled);
            }
            self.first_is_over.wait();
        }
        self.world.shelf.fetch(request, store, progress)
    }
}

impl Observer for SlowOrigin<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            // The first build goes on when the source of the second is on its way.
            Event::Building {
                package,
                phase: Phase::Running,
            } if package.as_str() == "first" => {
                self.late_is_asked_for.wait();
            }
            Event::Built { package, .. } if package.as_str() == "first" => {
                self.first_is_over.raise();
            }
            _ => {}
        }
        self.world.observer.event(event);
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// A package that needs another one and a source that comes slowly.
fn world(first: &str) -> Option<World> {
    let mut world = World::new()?;
    world.package("first", first);
    world.package_from(
        "second",
        "mkdir $DESTDIR/share; cp late $DESTDIR/share",
        "../first\n../seed\n",
        "",
    );
    world.add_source("second", "late", b"late");
    Some(world)
}

#[test]
fn a_slow_source_comes_while_what_it_waits_for_is_built() {
    let Some(mut world) = world("mkdir $DESTDIR/share") else {
        return;
    };
    let (graph, ids) = world.graph(&["second"]);
    let origin = SlowOrigin::new(&world);
    let report = world.with_context(|context, options| {
        let context = Context {
            sources: &origin,
            observer: &origin,
            ..*context
        };
        realise(&context, &graph, &ids, options)
    });
    let report = report.unwrap_or_else(|f| panic!("{}", full(&f)));
    assert_eq!(report.built, [name("first"), name("second")]);
    let of_second = report
        .fetched
        .iter()
        .filter(|item| item.package == name("second"));
    assert_eq!(of_second.count(), 1, "fetched once, and told once");
}

#[test]
fn a_source_that_is_not_needed_any_more_is_not_waited_for() {
    let Some(mut world) = world("exit 1") else {
        return;
    };
    let (graph, ids) = world.graph(&["second"]);
    let mut origin = SlowOrigin::new(&world);
    origin.never = true;
    let failure = world.with_context(|context, options| {
        let context = Context {
            sources: &origin,
            observer: &origin,
            ..*context
        };
        realise(&context, &graph, &ids, options)
    });
    assert_eq!(failure.unwrap_err().error.kind(), ErrorKind::BuildFailed);
    assert!(origin.was_stopped.load(Ordering::Relaxed));
}
