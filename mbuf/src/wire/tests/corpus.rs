//! Replays `mbuf/corpus/wire/*.hex`: frames kept because each once was, or well could be, somebody's crash.

use crate::wire::*;
use std::path::Path;

/// Bytes of a corpus file: hexadecimal digits, `#` to the end of the line says where the frame comes from.
fn read(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).expect("corpus file is readable");
    assert!(text.starts_with('#'), "{} does not say where it comes from", path.display());
    let digits: String = text.lines().map(|line| line.split('#').next().unwrap_or("")).collect();
    let digits: Vec<u32> =
        digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("a hex digit")).collect();
    assert_eq!(digits.len() % 2, 0, "{} ends in half a byte", path.display());
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn every_saved_frame_passes_every_harness() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/wire");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is in the package") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        let bytes = read(&path);
        // From every start: what is an Ethernet frame at 0 is an IP packet at 14.
        for from in 0..=bytes.len() {
            for (_, harness) in harness::ALL {
                harness(&bytes[from..]);
            }
        }
        // The first lines say what is wrong with the frame, if anything; the name repeats it.
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 name");
        let malformed = Layers::parse(&bytes).malformed;
        assert_eq!(malformed.is_some(), name.starts_with("bad-"), "{name}: {malformed:?}");
        count += 1;
    }
    assert!(count >= 12, "only {count} corpus files: is the folder complete?");
}
