//! scratch
use std::io::Write;
use p2pkgs_store::*;
#[test]
fn full() {
    let Ok(dir) = std::env::var("FULL_DIR") else { return };
    let store = Store::open(&std::path::Path::new(&dir).join("s")).unwrap();
    let mut n = 0u64;
    let e = loop {
        let mut i = store.ingest().unwrap();
        let r = i.append(&vec![n as u8; 3 << 20]).and_then(|()| i.append(&n.to_le_bytes()));
        if let Err(e) = r { break e }
        match i.finish(&Expected::anything()) { Ok(_) => {}, Err(e) => break e }
        n += 1;
    };
    println!("after {n}: {e} {e:?}");
    // fill rest
    let mut f = std::fs::File::create(format!("{dir}/fill")).unwrap();
    while f.write(&[0; 512]).is_ok() {}
    let mut k = 0u64;
    let e = loop {
        let t = vec![k as u8; 100_000 + k as usize];
        match store.put_derivation(&t) { Ok(_) => {}, Err(e) => break e }
        k += 1;
    };
    println!("derivations {k}: {e} {e:?}");
    let mut i = store.ingest();
    println!("ingest: {:?}", i.as_ref().err());
    if let Ok(i) = &mut i { println!("{:?}", i.append(&vec![1; 1<<20])); println!("{:?}", i.write(&vec![1; 1<<20])); println!("{:?}", i.reserve(1000)); }
    drop(i);
    std::fs::remove_file(format!("{dir}/fill")).unwrap();
    for b in store.blobs().unwrap() { assert_eq!(store.verify_blob(&b.sha256).unwrap(), BlobState::Intact); }
    println!("ok, {} blobs; put: {:?}", store.blobs().unwrap().len(), store.put_derivation(b"x"));
}
