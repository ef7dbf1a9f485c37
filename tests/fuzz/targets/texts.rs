//! Everything that has exactly one spelling: what is accepted is written back as it was.
#![no_main]

use base::SignedRealisation;
use libfuzzer_sys::fuzz_target;
use recipe::Derivation;
use trust::{Rule, SignedHead, SignedKeyStatement};

fuzz_target!(|input: &[u8]| {
    let _ = base::rec::parse(input);
    if let Ok(derivation) = Derivation::parse(input) {
        assert_eq!(derivation.to_string().as_bytes(), input);
    }
    if let Ok(signed) = SignedRealisation::from_bytes(input) {
        assert_eq!(signed.to_bytes(), input);
    }
    if let Ok(signed) = SignedKeyStatement::from_bytes(input) {
        assert_eq!(signed.to_bytes(), input);
    }
    if let Ok(signed) = SignedKeyStatement::parse_file(input) {
        assert_eq!(SignedKeyStatement::print_file(&signed), input);
    }
    if let Ok(signed) = SignedHead::from_bytes(input) {
        assert_eq!(signed.to_bytes(), input);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(rule) = text.parse::<Rule>() {
            let printed = rule.to_string();
            assert_eq!(printed.parse::<Rule>().unwrap().to_string(), printed);
        }
        let _ = text.parse::<trust::Pattern>();
        let _ = base::parse_cid(text);
        if let Ok(hash) = text.parse::<base::PkgHash>() {
            assert_eq!(hash.to_string(), text);
        }
    }
});
