//! Every kind of change is noticed, and what is remembered is what is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use super::*;
use crate::tree::belief::SETTLED_AFTER;

/// A tree and a home. Time is as far ahead of the clock as a file must have been at rest.
struct World {
    dir: tempfile::TempDir,
    home: Home,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        fs::create_dir_all(dir.path().join("tree/pkg")).unwrap();
        let home = Home::find(Some(&dir.path().join("home"))).unwrap();
        Self { dir, home }
    }

    /// With a package `a` that has something of everything.
    fn with_package() -> Self {
        let world = Self::new();
        let script = "#!/bin/sh\n";
        world.write("a/build", script);
        world.write("a/check", script);
        for name in ["build-deps", "run-deps", "check-deps", "fetch", "notes"] {
            world.write(&format!("a/{name}"), name);
        }
        world.write("a/files/patch/one", "one");
        world.write("shared", "../b\n");
        symlink("patch/one", world.path("a/files/link")).unwrap();
        world
    }

    fn tree(&self) -> DiskTree {
        DiskTree::find(Some(&self.dir.path().join("tree"))).unwrap()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("tree/pkg").join(below)
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What a command finds that begins at a time, and how many packages it had to read; it remembers those.
    fn load_at(&self, now: SystemTime, names: &[&str]) -> (Vec<Option<PackageFiles>>, usize) {
        let tree = self.tree();
        let mut remembering = RememberingTree::open(&tree, Some(&self.home), now);
        let names: Vec<PackageName> = names.iter().map(|name| name.parse().unwrap()).collect();
        remembering.expect(&names);
        let load = |name| remembering.load(name);
        let files = names.iter().map(load).collect::<Result<_, _>>().unwrap();
        let known = remembering.known.unwrap();
        let read = known.fresh.len();
        if read > 0 {
            known.write(tree.root()).unwrap();
        }
        (files, read)
    }

    /// The same when everything has been at rest for long.
    fn load(&self, names: &[&str]) -> (Vec<Option<PackageFiles>>, usize) {
        self.wait_for_a_tick();
        let later = SystemTime::now() + SETTLED_AFTER + Duration::from_secs(1);
        let loaded = self.load_at(later, names);
        self.wait_for_a_tick();
        loaded
    }

    /// Until the file system gives another time: what is remembered here is younger than it would be for a user.
    fn wait_for_a_tick(&self) {
        let probe = self.dir.path().join("probe");
        let time = || {
            fs::write(&probe, "").unwrap();
            let metadata = fs::metadata(&probe).unwrap();
            (metadata.ctime(), metadata.ctime_nsec())
        };
        let first = time();
        while time() == first {}
    }

    /// What is there, as a tree reads it that remembers nothing.
    fn truth(&self, names: &[&str]) -> Vec<Option<PackageFiles>> {
        let mut tree = self.tree();
        let load = |name: &&str| tree.load(&name.parse().unwrap()).unwrap();
        names.iter().map(load).collect()
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(self.home.path(FOLDER)).unwrap();
        files.next().unwrap().unwrap().path()
    }
}

/// In any order: that of a listing is the file system's.
fn sorted(mut files: Vec<Option<PackageFiles>>) -> Vec<Option<PackageFiles>> {
    for files in files.iter_mut().flatten() {
        files.files.sort_by(|a, b| a.path.cmp(&b.path));
        files.other.sort();
    }
    files
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let world = World::with_package();
    let (first, read) = world.load(&["a", "missing"]);
    assert_eq!((read, first[1].is_none()), (1, true));
    let (second, read) = world.load(&["a", "missing"]);
    assert_eq!((read, second), (0, first));
}

/// Changes something of the package.
type Change = &'static dyn Fn(&World);

#[test]
fn every_kind_of_change_is_noticed() {
    let changes: [(&str, Change); 14] = [
        ("a script", &|w| w.write("a/build", "#!/bin/sh -e\n")),
        ("of the same length", &|w| {
            w.write("a/build-deps", "build_deps");
        }),
        ("dependencies", &|w| w.write("a/run-deps", "")),
        ("a source", &|w| w.write("a/fetch", "fetcj")),
        ("a check", &|w| w.write("a/check-deps", "")),
        ("a mode", &|w| {
            fs::set_permissions(w.path("a/build"), Permissions::from_mode(0o755)).unwrap();
        }),
        ("a stranger", &|w| w.write("a/stranger", "")),
        ("one file less", &|w| {
            fs::remove_file(w.path("a/check")).unwrap();
        }),
        ("a patch", &|w| w.write("a/files/patch/one", "two")),
        ("another patch", &|w| w.write("a/files/patch/two", "")),
        ("a patch less", &|w| {
            fs::remove_file(w.path("a/files/patch/one")).unwrap();
        }),
        ("a link", &|w| {
            fs::remove_file(w.path("a/files/link")).unwrap();
            symlink("patch/two", w.path("a/files/link")).unwrap();
        }),
        ("a file put in place", &|w| {
            w.write("new", "notes of the same length");
            fs::rename(w.path("new"), w.path("a/fetch")).unwrap();
        }),
        ("a folder put in place", &|w| {
            w.write("b/build", "#!/bin/sh\n");
            fs::rename(w.path("a"), w.path("old")).unwrap();
            fs::rename(w.path("b"), w.path("a")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let world = World::with_package();
        let (before, _) = world.load(&["a"]);
        change(&world);
        let (after, read) = world.load(&["a"]);
        assert_eq!((read, &after), (1, &world.truth(&["a"])), "{what}");
        assert_ne!(sorted(after), sorted(before), "{what}");
    }
}

#[test]
fn many_packages_are_looked_at_ahead_with_all_that_they_need_and_no_others() {
    let world = World::new();
    let names: Vec<_> = (0..500).map(|number| format!("p{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let (build, run) = (number * 2 + 1, number * 2 + 2);
        world.write(&format!("{name}/build"), "#!/bin/sh\n");
        world.write(&format!("{name}/build-deps"), &format!("../p{build}\n"));
        world.write(&format!("{name}/run-deps"), &format!(" ../p{run}/ \n"));
    }
    world.write("apart/build", "#!/bin/sh\n");
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("apart");
    assert_eq!(world.load(&all).1, 501);
    world.write("p77/build", "#!/bin/sh -e\n");
    let (tree, later) = (world.tree(), SystemTime::now() + 2 * SETTLED_AFTER);
    let mut remembering = RememberingTree::open(&tree, Some(&world.home), later);
    remembering.expect(&["p0".parse().unwrap()]);
    let known = remembering.known.as_ref().unwrap();
    let looked = |name: &str| known.looked[known.memory.find(&name.parse().unwrap()).unwrap()];
    let count = |what| names.iter().filter(|name| looked(name) == what).count();
    assert_eq!((count(Some(true)), count(Some(false))), (499, 1));
    assert_eq!((looked("p77"), looked("apart")), (Some(false), None));
}

#[test]
fn a_modification_time_that_was_set_back_deceives_nobody() {
    let world = World::with_package();
    world.load(&["a"]);
    let path = world.path("a/build");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "#!/bin/zs\n").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
    assert_eq!(world.load(&["a"]).0, world.truth(&["a"]));
}

#[test]
fn what_a_link_leads_to_counts_also_when_the_way_there_is_changed() {
    let world = World::with_package();
    world.write("x/deps", "../b\n");
    world.write("y/deps", "../c\n");
    symlink("x", world.path("way")).unwrap();
    fs::remove_file(world.path("a/run-deps")).unwrap();
    symlink("../way/deps", world.path("a/run-deps")).unwrap();
    world.load(&["a"]);
    let changes: [&dyn Fn(); 2] = [&|| world.write("x/deps", "../d\n"), &|| {
        fs::remove_file(world.path("way")).unwrap();
        symlink("y", world.path("way")).unwrap();
    }];
    for change in changes {
        change();
        let (after, read) = world.load(&["a"]);
        assert_eq!((read, after), (1, world.truth(&["a"])));
    }
}

#[test]
fn what_is_young_is_read_each_time() {
    let world = World::with_package();
    for text in ["one", "two", "six"] {
        world.write("a/fetch", text);
        // Within one tick, perhaps.
        let (files, read) = world.load_at(SystemTime::now(), &["a"]);
        assert_eq!((read, files), (0, world.truth(&["a"])));
    }
    assert!(!world.home.path(FOLDER).exists());
}

#[test]
fn damage_is_passed_over_and_written_anew() {
    let world = World::with_package();
    let (first, _) = world.load(&["a"]);
    let whole = fs::read(world.file()).unwrap();
    let bad = [&whole[..whole.len() / 2], b"", b"nonsense"];
    for bytes in bad {
        fs::write(world.file(), bytes).unwrap();
        assert_eq!(world.load(&["a"]), (first.clone(), 1));
        assert_eq!(fs::read(world.file()).unwrap(), whole);
    }
}

#[test]
fn who_is_killed_while_writing_leaves_the_old_file_and_no_heap_of_new_ones() {
    let world = World::with_package();
    let (first, _) = world.load(&["a"]);
    let old = world.file();
    let half = fs::read(&old).unwrap();
    for number in 0..2 * TREES_MAX {
        let path = world.home.path(FOLDER).join(format!(".{number}.1234"));
        fs::write(path, &half[..half.len() / 2]).unwrap();
    }
    assert_eq!(world.load(&["a"]), (first, 0));
    world.write("a/fetch", "other");
    world.load(&["a"]);
    let left = fs::read_dir(world.home.path(FOLDER)).unwrap().count();
    assert_eq!((left, old.exists()), (TREES_MAX, true));
    assert_eq!(world.load(&["a"]), (world.truth(&["a"]), 0));
}

#[test]
fn another_tree_in_its_place_is_not_believed() {
    let world = World::with_package();
    world.load(&["a"]);
    let (tree, other) = (
        world.dir.path().join("tree"),
        world.dir.path().join("other"),
    );
    fs::create_dir_all(other.join("pkg/a")).unwrap();
    for name in ["build", "fetch"] {
        fs::copy(
            tree.join("pkg/a").join(name),
            other.join("pkg/a").join(name),
        )
        .unwrap();
    }
    fs::rename(&tree, world.dir.path().join("gone")).unwrap();
    fs::rename(&other, &tree).unwrap();
    assert_eq!(world.load(&["a"]), (world.truth(&["a"]), 1));
}

#[test]
fn a_tree_that_gave_place_to_another_meanwhile_is_not_remembered() {
    let world = World::with_package();
    let tree = world.tree();
    let later = SystemTime::now() + 2 * SETTLED_AFTER;
    let mut remembering = RememberingTree::open(&tree, Some(&world.home), later);
    remembering.load(&"a".parse().unwrap()).unwrap();
    fs::rename(world.path(""), world.dir.path().join("gone")).unwrap();
    fs::create_dir(world.path("")).unwrap();
    remembering.known.unwrap().write(tree.root()).unwrap();
    assert!(!world.home.path(FOLDER).exists());
}

#[test]
fn a_small_tree_and_one_without_a_home_are_read_and_not_remembered() {
    let world = World::with_package();
    let tree = world.tree();
    let later = SystemTime::now() + 2 * SETTLED_AFTER;
    let nowhere = Home::find(Some(&world.dir.path().join("no/home"))).unwrap();
    for home in [None, Some(&nowhere), Some(&world.home)] {
        let mut remembering = RememberingTree::open(&tree, home, later);
        let files = remembering.load(&"a".parse().unwrap()).unwrap();
        assert_eq!(vec![files], world.truth(&["a"]));
        remembering.remember();
        assert!(!world.home.path(FOLDER).exists() && !nowhere.root().exists());
    }
}

/// A generator with a seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Changes something, as users and their tools do.
fn edit(world: &World, random: &mut Random) {
    const FILES: [&str; 9] = [
        "build",
        "build-deps",
        "run-deps",
        "fetch",
        "check",
        "stranger",
        "files/a",
        "files/sub/b",
        "files/sub/deep/c",
    ];
    let package = ["a", "b", "c"][random.below(3)];
    let file = FILES[random.below(FILES.len())];
    let below = format!("{package}/{file}");
    let path = world.path(&below);
    let text = ["one", "two", "six", "longer"][random.below(4)];
    match random.below(9) {
        0..3 => world.write(&below, text),
        3 => {
            world.write("next", text);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::rename(world.path("next"), &path).unwrap();
        }
        4 => drop(fs::remove_file(&path)),
        5 => {
            let mode = [0o644, 0o755][random.below(2)];
            drop(fs::set_permissions(&path, Permissions::from_mode(mode)));
        }
        6 => drop(fs::remove_dir_all(world.path(package))),
        7 => {
            drop(fs::remove_file(world.path(&format!("{package}/files/l"))));
            drop(symlink(text, world.path(&format!("{package}/files/l"))));
        }
        _ => {
            // As `cp -p` does: the bytes are others, the modification time is the old one.
            let time = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if let Ok(time) = time {
                fs::write(&path, text).unwrap();
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(time).unwrap();
            }
        }
    }
}

#[test]
fn after_any_edits_what_is_remembered_is_what_is_there() {
    let names = ["a", "b", "c", "missing"];
    for seed in 0..8 {
        let (world, mut random) = (World::new(), Random(seed));
        let mut saved = 0;
        for step in 0..60 {
            for _ in 0..random.below(4) {
                edit(&world, &mut random);
            }
            let (found, read) = world.load(&names);
            saved += found.iter().flatten().count() - read;
            let (found, truth) = (sorted(found), sorted(world.truth(&names)));
            assert_eq!(found, truth, "seed {seed}, step {step}");
        }
        assert!(saved > 0, "seed {seed}: nothing was ever remembered");
    }
}
