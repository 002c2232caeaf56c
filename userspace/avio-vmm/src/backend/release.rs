// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The module's release beside ours. Nothing depends on it: what both can do they agree on.

use std::fs::read_to_string;
use std::path::Path;

use avio_abi::release::{Difference, Release};

/// Where the module shows it to everybody.
const MODULE: &str = "/sys/module/avio_host/version";

/// Says it if the module is of another release; nothing if it does not tell.
pub fn compare() {
    if let Some(difference) = difference(Path::new(MODULE)) {
        tracing::warn!("{difference}");
    }
}

fn difference(module: &Path) -> Option<Difference> {
    let release = Release::parse(read_to_string(module).ok()?.trim())?;
    Release::CURRENT.compare("avio-vmm", release, "avio_host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_another_release_is_told_and_no_other() {
        let path = std::env::temp_dir().join(format!("avio-version-{}", std::process::id()));
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            difference(&path).map(|difference| difference.to_string())
        };
        assert_eq!(said(&format!("{}\n", Release::CURRENT)), None);
        assert_eq!(said("of my own\n"), None);
        let older = said("0.0.9\n").unwrap();
        assert!(older.contains("avio_host of 0.0.9"), "{older}");
        assert!(older.ends_with("renew avio_host"), "{older}");
        assert!(said("1023.0.0\n").unwrap().ends_with("renew avio-vmm"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(difference(&path), None);
    }
}
