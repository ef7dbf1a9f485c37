//! Names of files: both sides give the same content the same CID.

use crate::support::{Kubo, MODERN, Role, SIZES, World, write_file};

#[test]
fn a_file_has_the_cid_that_kubo_gives_it() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let kubo = Kubo::start(&world, MODERN, Role::DhtClient, None);
    let home = world.home("mirror");
    for size in SIZES {
        let file = world.path("file");
        write_file(&file, size);
        assert_eq!(home.add(&file), kubo.cid_of(&file), "{size} bytes");
    }
}
