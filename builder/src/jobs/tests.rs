//! The job server over real pipes; nothing here waits for time, a read blocks until there is a job.

use super::*;

const NEVER: &dyn Fn() -> bool = &|| false;

fn take(from: &OwnedFd, jobs: usize) {
    for _ in 0..jobs {
        assert_eq!(read(from, &mut [0; 1]), Ok(1));
    }
}

fn give(to: &OwnedFd, jobs: usize) {
    assert_eq!(write(to, &vec![b'+'; jobs]), Ok(jobs));
}

#[test]
fn a_build_borrows_what_is_free_and_borrows_again_what_it_returned() {
    let server = JobServer::new(4).unwrap();
    let seat = server.seat(NEVER).unwrap();
    let lending = seat.lend().unwrap();
    take(&lending.pipes.to_read, 3);
    assert_eq!(ioctl_fionread(&lending.pipes.lending), Ok(0));
    give(&lending.pipes.to_write, 2);
    take(&lending.pipes.to_read, 2);
    // As the newer form of the protocol does it: back to where it came from.
    give(&lending.pipes.lending, 1);
    take(&lending.pipes.to_read, 1);
}

#[test]
fn a_build_that_dies_with_jobs_in_its_hands_loses_none() {
    let server = JobServer::new(4).unwrap();
    for _ in 0..3 {
        let seat = server.seat(NEVER).unwrap();
        let lending = seat.lend().unwrap();
        take(&lending.pipes.to_read, 3);
    }
    let seats: Vec<_> = (0..4).map(|_| server.seat(NEVER).unwrap()).collect();
    assert!(server.seat(&|| true).is_none(), "all are taken");
    drop(seats);
}

#[test]
fn a_seat_is_made_of_what_a_running_build_does_not_use() {
    let server = JobServer::new(2).unwrap();
    let first = server.seat(NEVER).unwrap();
    let _lending = first.lend().unwrap();
    drop(server.seat(NEVER).unwrap());
}

#[test]
fn a_seat_is_made_of_the_next_job_that_ends() {
    let server = JobServer::new(2).unwrap();
    let first = server.seat(NEVER).unwrap();
    let lending = first.lend().unwrap();
    take(&lending.pipes.to_read, 1);
    thread::scope(|scope| {
        let second = scope.spawn(|| server.seat(NEVER).unwrap());
        give(&lending.pipes.to_write, 1);
        drop(second.join().unwrap());
    });
}

#[test]
fn a_build_that_makes_up_jobs_takes_none_from_others() {
    let server = JobServer::new(3).unwrap();
    let liar = server.seat(NEVER).unwrap();
    let lies = liar.lend().unwrap();
    take(&lies.pipes.to_read, 2);
    give(&lies.pipes.to_write, 1000);
    give(&lies.pipes.lending, 1000);
    // What it had is free again, and not a job more.
    let seats = [server.seat(NEVER).unwrap(), server.seat(NEVER).unwrap()];
    assert!(server.seat(&|| true).is_none());
    drop((lies, liar, seats));
    let all: Vec<_> = (0..3).map(|_| server.seat(NEVER).unwrap()).collect();
    assert!(server.seat(&|| true).is_none());
    drop(all);
}

#[test]
fn what_a_child_inherits_has_numbers_that_do_not_change() {
    let server = JobServer::new(2).unwrap();
    let seat = server.seat(NEVER).unwrap();
    let auth = || seat.lend().unwrap().to_inherit().unwrap().auth();
    assert_eq!((auth(), auth()), ("900,901".into(), "900,901".into()));
}
