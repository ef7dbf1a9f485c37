//! An archive from a stranger: whatever it says, nothing beside its destination changes.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use store::archive::{UnpackLimits, unpack};

fuzz_target!(|input: &[u8]| {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dest = place.path().join("dest");
    fs::create_dir(&dest).expect("a destination");
    let limits = UnpackLimits {
        entries_max: 64,
        bytes_max: 1 << 20,
        ..UnpackLimits::default()
    };
    let _ = unpack(input, &dest, &limits);
    let beside: Vec<_> = fs::read_dir(place.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(beside, ["dest"]);
});
