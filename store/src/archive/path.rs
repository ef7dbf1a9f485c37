//! Paths and link targets inside archives: which are harmless.

use super::UnpackLimits;

/// Longest name of a single file, in bytes: the limit of every file system in use.
const COMPONENT_BYTES_MAX: usize = 255;

/// A path without `.` components and superfluous slashes. The root itself becomes the empty path.
///
/// # Errors
/// The reason why the path is refused.
pub(super) fn normalise(path: &[u8], limits: &UnpackLimits) -> Result<Vec<u8>, &'static str> {
    if path.len() > limits.path_bytes_max {
        return Err("its path is too long");
    }
    if path.starts_with(b"/") {
        return Err("its path is absolute");
    }
    if path.contains(&0) {
        return Err("its path has a NUL byte");
    }
    let mut depth = 0;
    let mut clean = Vec::with_capacity(path.len());
    for component in components(path) {
        if component == b".." {
            return Err("its path has a `..` component");
        }
        if component.len() > COMPONENT_BYTES_MAX {
            return Err("a component of its path is too long");
        }
        depth += 1;
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    if depth > limits.depth_max {
        return Err("its path is too deep");
    }
    Ok(clean)
}

/// Checks the target of a symbolic link at `path` (which is normalised).
///
/// Only leading `..` are taken: they climb real directories, because unpacking never creates anything behind a link.
/// A `..` after a name could follow another link first and then climb out of the tree, however harmless it looks.
///
/// # Errors
/// The reason why the target is refused.
pub(super) fn check_target(
    path: &[u8],
    target: &[u8],
    limits: &UnpackLimits,
) -> Result<(), &'static str> {
    if target.is_empty() {
        return Err("its link has no target");
    }
    if target.len() > limits.path_bytes_max || target.contains(&0) {
        return Err("its link target is too long or has a NUL byte");
    }
    if target.starts_with(b"/") && !limits.allow_absolute_links {
        return Err("its link target is absolute");
    }
    let is_absolute = target.starts_with(b"/");
    let mut climbs_left = if is_absolute {
        0
    } else {
        components(path).count().saturating_sub(1)
    };
    let mut has_descended = false;
    for component in components(target) {
        if component != b".." {
            has_descended = true;
        } else if has_descended {
            return Err("its link target has a `..` after a name");
        } else {
            climbs_left = climbs_left
                .checked_sub(1)
                .ok_or("its link target leads out of the archive")?;
        }
    }
    Ok(())
}

/// The directory and the last name of a normalised path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The names in a path, without empty ones and `.`.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(allow_absolute_links: bool) -> UnpackLimits {
        UnpackLimits {
            allow_absolute_links,
            ..UnpackLimits::default()
        }
    }

    #[test]
    fn harmless_spellings_become_one() {
        for path in ["a/b", "./a/b", "a//b/", "./a/./b/."] {
            assert_eq!(
                normalise(path.as_bytes(), &limits(false)),
                Ok(b"a/b".to_vec()),
                "{path}"
            );
        }
        assert_eq!(normalise(b"./", &limits(false)), Ok(Vec::new()));
        assert_eq!(normalise(b"\xff", &limits(false)), Ok(b"\xff".to_vec()));
    }

    #[test]
    fn paths_that_leave_the_destination_are_refused() {
        for path in ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\0b"] {
            assert!(
                normalise(path.as_bytes(), &limits(true)).is_err(),
                "{path:?}"
            );
        }
        assert!(normalise("a/".repeat(65).as_bytes(), &limits(true)).is_err());
        assert!(normalise("a".repeat(256).as_bytes(), &limits(true)).is_err());
        assert!(normalise("a/".repeat(4096).as_bytes(), &limits(true)).is_err());
    }

    #[test]
    fn link_targets_stay_inside() {
        for (path, target) in [
            ("a", "b"),
            ("a/b", "../c"),
            ("a/b/c", "../../d/e"),
            ("a", "./b"),
        ] {
            assert_eq!(
                check_target(path.as_bytes(), target.as_bytes(), &limits(false)),
                Ok(()),
                "{path} -> {target}"
            );
        }
        for (path, target) in [
            ("a", ".."),
            ("a/b", "../.."),
            ("a/b", "../../c"),
            ("a", "b/../.."),
            ("a", ""),
            ("a", "/b"),
        ] {
            assert!(
                check_target(path.as_bytes(), target.as_bytes(), &limits(false)).is_err(),
                "{path} -> {target}"
            );
        }
        assert_eq!(
            check_target(b"a", b"/usr/lib/libc.so", &limits(true)),
            Ok(())
        );
        assert!(check_target(b"a", b"/../x", &limits(true)).is_err());
    }

    proptest! {
        #[test]
        fn a_normalised_path_is_relative_and_stays_the_same(path in "[a./]{0,20}") {
            if let Ok(clean) = normalise(path.as_bytes(), &limits(false)) {
                prop_assert!(!clean.starts_with(b"/") && !clean.ends_with(b"/"));
                prop_assert!(components(&clean).all(|name| name != b".."));
                prop_assert_eq!(normalise(&clean, &limits(false)), Ok(clean));
            }
        }
    }
}
