//! The base URLs of the machine's own Debian mirrors, out of apt's two configuration formats.
//!
//! A machine that installs Debian packages already has a mirror that works for it: near, allowed by its firewall, often a
//! proxy next door. Only reading is done here, and leniently: a line that is not understood is somebody else's business.

/// URLs of a one-line-style `sources.list` (`deb [options] URL suite component…`), in order.
pub fn base_urls_of_sources_list(text: &str) -> Vec<String> {
    let mut urls = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb-src")
            .or_else(|| line.strip_prefix("deb"))
        else {
            continue;
        };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, after)| after),
            None => rest,
        };
        take(rest.split_whitespace().next(), &mut urls);
    }
    urls
}

/// URLs of the `URIs:` fields of a deb822-style `*.sources` file, in order; stanzas with `Enabled: no` do not count.
pub fn base_urls_of_deb822(text: &str) -> Vec<String> {
    let mut urls = Vec::new();
    for stanza in stanzas(text) {
        let field = |name: &str| stanza.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        if field("Enabled").is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case("no")) {
            continue;
        }
        for url in field("URIs")
            .into_iter()
            .flat_map(|(_, value)| value.split_whitespace())
        {
            take(Some(url), &mut urls);
        }
    }
    urls
}

/// Fields of each stanza with continuation lines joined.
fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let current = all.last_mut().expect("there is always a stanza");
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            current.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

/// Keeps a URL whose last part says that it is the Debian archive, and not another vendor's or the one of security fixes.
fn take(url: Option<&str>, urls: &mut Vec<String>) {
    let Some(url) = url.map(|url| url.trim_end_matches('/')) else {
        return;
    };
    let last = url.rsplit('/').next().unwrap_or_default();
    let http = url.starts_with("http://") || url.starts_with("https://");
    let debian = last.contains("debian") && !last.contains("security");
    if http && debian && !urls.iter().any(|known| known == url) {
        urls.push(url.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_lists_give_their_debian_urls_once() {
        let text = "# deb http://old/debian stable main\n\
            deb http://near.example.org/debian/ stable main # near\n\
            deb-src [arch=amd64 signed-by=/x y.gpg] http://near.example.org/debian stable main\n\
            deb [trusted=yes] https://proxy:3142/far.example.org/debian sid main\n\
            deb http://near.example.org/debian-security stable-security main\n\
            deb http://vendor.example.org/apt ./\n\
            deb cdrom:[Disk]/debian stable main\n\
            deb [broken http://x/debian\n\
            nonsense\n";
        assert_eq!(
            base_urls_of_sources_list(text),
            [
                "http://near.example.org/debian",
                "https://proxy:3142/far.example.org/debian"
            ]
        );
    }

    #[test]
    fn deb822_stanzas_give_their_debian_urls_unless_disabled() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://a.example.org/debian/\n  http://b.example.org/debian\n\
            # in between\nSuites: stable\n\nEnabled: no\nURIs: http://c.example.org/debian\n\n\
            uris: http://d.example.org/debian-security http://e.example.org/debian-backports\n\n orphan\n";
        assert_eq!(
            base_urls_of_deb822(text),
            [
                "http://a.example.org/debian",
                "http://b.example.org/debian",
                "http://e.example.org/debian-backports"
            ]
        );
    }

    #[test]
    fn empty_and_odd_texts_give_nothing() {
        for text in ["", "\n\n", "deb", "URIs:", ": x", "\u{0}"] {
            assert!(base_urls_of_sources_list(text).is_empty());
            assert!(base_urls_of_deb822(text).is_empty());
        }
    }
}
