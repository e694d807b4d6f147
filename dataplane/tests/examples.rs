//! Every configuration in `deploy/` makes a dataplane: its ports replaced by some in memory, all else as it says.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nke_dataplane::assemble::assemble;
use nke_dataplane::config::{Arg, Config, PortKind, Role, RouterHost};

fn examples() -> Vec<PathBuf> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let folders = [deploy.clone(), deploy.join("examples")];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect()
}

/// A file that is gone afterwards.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_example_makes_a_dataplane() {
    let all = examples();
    // What the examples take from /etc/nke: a key, or rules.
    let [key, rules] = [("key", "0123456789abcdef".repeat(4) + "\n"), ("rules", "permit any\n".into())].map(
        |(what, text)| {
            let file =
                Temporary(std::env::temp_dir().join(format!("nke-examples-{}.{what}", std::process::id())));
            std::fs::write(&file.0, text).unwrap();
            std::fs::set_permissions(&file.0, Permissions::from_mode(0o600)).unwrap();
            file
        },
    );
    assert!(all.len() >= 10, "are they there? {all:?}");
    for path in all {
        let mut config = Config::load(&path).unwrap_or_else(|complaints| panic!("{complaints}"));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if config.router.as_ref().is_some_and(|router| router.host == RouterHost::Kernel) {
            println!("skipped: {name} follows the kernel's tables");
            continue;
        }
        if config.interface.iter().any(|interface| interface.kind == "tap") {
            println!("skipped: {name} makes a device");
            continue;
        }
        config.runtime.cores = Config::default().runtime.cores;
        config.pool = Config::default().pool;
        for port in &mut config.port {
            (port.kind, port.role) = (PortKind::Memory, Some(Role::Sink));
            (port.device, port.netns) = (None, None);
        }
        for (name, arg) in config.filter.iter_mut().flat_map(|filter| &mut filter.args) {
            if matches!(arg, Arg::Text(text) if text.starts_with("/etc/nke/")) {
                let file = if name == "key" { &key } else { &rules };
                *arg = Arg::Text(file.0.to_string_lossy().into_owned());
            }
        }
        let assembly = assemble(&config).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(assembly.filters.len(), config.filter.len(), "{name}");
        println!("{name}: {} filters, {} interfaces", config.filter.len(), config.interface.len());
        let account = assembly.stop();
        assert_eq!((account.free, account.outstanding), (account.capacity, 0), "{name}");
    }
}
