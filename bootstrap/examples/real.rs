//! scratch
#![allow(warnings, clippy::all, clippy::pedantic)]
use base::*;
use builder::*;
use recipe::*;
use std::{
    fs,
    io::{self, Read},
    path::*,
};
use store::substitute::*;
use store::*;
struct Tree(PathBuf);
fn walk(root: &Path, rel: &str, out: &mut Vec<FileEntry>) {
    for e in fs::read_dir(root.join(rel)).unwrap() {
        let e = e.unwrap();
        let n = e.file_name().into_string().unwrap();
        let p = if rel.is_empty() {
            n
        } else {
            format!("{rel}/{n}")
        };
        let t = e.file_type().unwrap();
        if t.is_dir() {
            walk(root, &p, out)
        } else if t.is_symlink() {
            out.push(FileEntry::symlink(
                p.clone(),
                fs::read_link(e.path())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .as_bytes(),
            ))
        } else {
            use std::os::unix::fs::PermissionsExt;
            let b = fs::read(e.path()).unwrap();
            let x = e.metadata().unwrap().permissions().mode() & 0o100 != 0;
            out.push(FileEntry::regular(p, x, &b))
        }
    }
}
impl PackageSource for Tree {
    type Error = io::Error;
    fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, io::Error> {
        let d = self.0.join(name.as_str());
        if !d.exists() {
            return Ok(None);
        }
        let rd = |n: &str| fs::read(d.join(n)).ok();
        let mut files = vec![];
        if d.join("files").exists() {
            walk(&d.join("files"), "", &mut files)
        }
        Ok(Some(PackageFiles {
            build: rd("build").map(|bytes| FileBytes {
                executable: true,
                bytes,
            }),
            build_deps: rd("build-deps"),
            run_deps: rd("run-deps"),
            fetch: rd("fetch"),
            files,
            other: vec![],
        }))
    }
}
impl RecipeFiles for Tree {
    fn read(&self, p: &PackageName, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(p.as_str()).join("files").join(path))
    }
}
struct Shelf(PathBuf);
impl SourceFetcher for Shelf {
    fn fetch(
        &self,
        r: &SourceRequest<'_>,
        store: &Store,
        p: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let mut f = fs::File::open(self.0.join(r.file_name)).map_err(|_| FetchError::Missing {
            asked: Asked::default(),
        })?;
        let mut i = store.ingest()?;
        io::copy(&mut f, &mut i).unwrap();
        let blob = i.finish(&Expected::sha256(r.sha256))?;
        Ok(Fetched {
            received: vec![(Origin::File("x".into()), blob.size)],
            blob,
            asked: Asked::default(),
        })
    }
}
struct Nobody;
impl Substituter for Nobody {
    fn query(&self, _: &PkgHash) -> Result<Query, QueryError> {
        Ok(Query::default())
    }
    fn fetch(&self, _: &Realisation, _: &Store, _: &dyn Progress) -> Result<Fetched, FetchError> {
        unreachable!()
    }
}
struct Talk;
impl Observer for Talk {
    fn event(&self, e: &builder::Event<'_>) {
        match e {
            builder::Event::Output { .. } | builder::Event::Fetching { .. } => {}
            e => eprintln!("{e:?}"),
        }
    }
    fn cancelled(&self) -> bool {
        false
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let home = PathBuf::from(&a[1]);
    let cmd = &a[2];
    let store = Store::open(&home.join("store")).unwrap();
    let key = SecretKey::from_seed(&[1; 32]);
    let trust = TrustPolicy::new([key.public()], 1);
    let files = Tree("/work/main/pkg".into());
    let mut tree = Tree("/work/main/pkg".into());
    let sandbox = LazySandbox::new(std::env::var_os("PATH").unwrap());
    let (sc, lg) = (home.join("scratch"), home.join("logs"));
    let shelf = Shelf("/tmp/distfiles".into());
    let ctx = Context {
        store: &store,
        substituter: &Nobody,
        sources: &shelf,
        trust: &trust,
        signer: Some(&key),
        files: &files,
        sandbox: &sandbox,
        observer: &Talk,
        scratch: &sc,
        logs: &lg,
        now_unix_secs: 0,
    };
    let o = Options {
        jobs: 2,
        cores: 2,
        keep_going: true,
        ..Options::default()
    };
    let sys = System::host();
    let t = std::time::Instant::now();
    match cmd.as_str() {
        "rebuild" | "verify" => {
            let seeds = p2pkgs_bootstrap::seeds().unwrap();
            let rq = p2pkgs_bootstrap::Request {
                seed: &seeds[0],
                compiler: &a[3],
                stage_0: p2pkgs_bootstrap::TINY_STAGE_0,
                options: &o,
                resume: a.len() < 5,
            };
            let ev = |e| eprintln!("{:?} {e:?}", t.elapsed());
            if cmd == "rebuild" {
                println!(
                    "{:?}",
                    p2pkgs_bootstrap::rebuild(&ctx, &mut tree, &sys, &rq, &ev)
                );
            } else {
                println!(
                    "{:?}",
                    p2pkgs_bootstrap::verify(&ctx, &mut tree, &sys, &rq, &ev)
                );
            }
        }
        "build" | "check" => {
            let roots: Vec<_> = a[3..].iter().map(|x| x.parse().unwrap()).collect();
            let g = Graph::resolve(&mut tree, &roots, &sys).unwrap();
            let ids = g.roots().to_vec();
            let r = if cmd == "build" {
                realise(&ctx, &g, &ids, &o)
            } else {
                check(&ctx, &g, &ids, &o)
            };
            match r {
                Ok(r) => println!("ok built {:?} realised {}", r.built, r.realised.len()),
                Err(f) => {
                    println!("FAILED {}", f.error);
                    if let builder::Error::NotReproducible { differences, .. } = &f.error {
                        println!("{differences:#?}")
                    }
                    if let builder::Error::BuildFailed(b) = &f.error {
                        for l in &b.last_lines {
                            println!("   {}", String::from_utf8_lossy(l))
                        }
                    }
                    for o in &f.others {
                        println!("  also {o}")
                    }
                }
            }
        }
        "venv" => {
            let roots: Vec<_> = a[4..].iter().map(|x| x.parse().unwrap()).collect();
            let g = Graph::resolve(&mut tree, &roots, &sys).unwrap();
            let ids = g.roots().to_vec();
            let r = realise(&ctx, &g, &ids, &o)
                .map_err(|e| e.to_string())
                .unwrap();
            builder::venv::create(&store, &r.closure(&g, &ids).unwrap(), Path::new(&a[3])).unwrap();
        }
        _ => {}
    }
    eprintln!("total {:?}", t.elapsed());
}
