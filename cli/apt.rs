//! Reads the machine's apt configuration for the base URLs of its Debian mirrors; what it means is `netconfig`'s business.

use std::fs;
use std::path::{Path, PathBuf};

use netconfig::{base_urls_of_deb822, base_urls_of_sources_list};

/// Files that are looked at, at most; a machine with more is not a machine but an accident.
const FILES_MAX: usize = 64;

/// Base URLs of the Debian mirrors in `/etc/apt`. Whatever cannot be read is left out: it only costs a faster mirror.
pub fn base_urls(etc_apt: &Path) -> Vec<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    let mut parts: Vec<PathBuf> = fs::read_dir(etc_apt.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.sort();
    files.extend(parts);
    let mut urls = Vec::new();
    for file in files.iter().take(FILES_MAX) {
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        let found = match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => base_urls_of_deb822(&text),
            Some("list") => base_urls_of_sources_list(&text),
            _ => Vec::new(),
        };
        for url in found {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_in_order_and_other_files_are_not() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(
            apt.path().join("sources.list"),
            "deb http://a.example.org/debian stable main\n",
        )
        .unwrap();
        fs::write(
            parts.join("b.sources"),
            "URIs: http://b.example.org/debian\n",
        )
        .unwrap();
        fs::write(
            parts.join("c.list"),
            "deb http://a.example.org/debian sid main\n",
        )
        .unwrap();
        fs::write(
            parts.join("d.disabled"),
            "deb http://d.example.org/debian sid main\n",
        )
        .unwrap();
        fs::write(parts.join("e.list"), b"\xff\xfe").unwrap();
        assert_eq!(
            base_urls(apt.path()),
            ["http://a.example.org/debian", "http://b.example.org/debian"]
        );
        assert!(base_urls(Path::new("/does/not/exist")).is_empty());
    }
}
