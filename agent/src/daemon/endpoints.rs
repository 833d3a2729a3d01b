//! Numbers of endpoints. Flows, counters and attachments in the kernel are known by them, so a
//! restarted agent must give every endpoint the number it had.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use agent_policy::{model::ObjectName, plan::Programmed};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Endpoint numbers by workload, kept in the state folder.
#[derive(Debug)]
pub(crate) struct Registry {
    path: PathBuf,
    kept: Kept,
    /// Numbers that the kernel has words for, though nobody here knows whose they are.
    foreign: Vec<u16>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// `NAMESPACE/NAME` → number.
    endpoints: BTreeMap<String, u16>,
    /// The number given last. Counting on delays the day that a number is used again, until when
    /// flows of its last owner are forgotten.
    last: u16,
}

/// More endpoints than numbers, or than the tables have room for.
#[derive(Debug, thiserror::Error)]
#[error("no number is left for endpoint {name}: the tables have room for {capacity} endpoints")]
pub(crate) struct NoNumber {
    name: String,
    capacity: usize,
}

impl Registry {
    /// Reads the numbers of an earlier agent.
    ///
    /// A file that cannot be understood is put aside: endpoints then get new numbers.
    pub(crate) fn open(state_dir: &Path, programmed: &Programmed) -> anyhow::Result<Self> {
        let path = state_dir.join("endpoints.json");
        let kept: Kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "endpoint numbers are lost");
                Kept::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let foreign = programmed
            .words
            .keys()
            .copied()
            .filter(|id| !kept.endpoints.values().any(|known| known == id))
            .collect();
        Ok(Self {
            path,
            kept,
            foreign,
        })
    }

    /// Gives each of `names` a number and forgets all others.
    ///
    /// # Errors
    ///
    /// If there are too many, or the file cannot be written; the numbers are then as before.
    pub(crate) fn assign<'n>(
        &mut self,
        names: impl Iterator<Item = &'n ObjectName>,
        capacity: usize,
    ) -> anyhow::Result<BTreeMap<u16, ObjectName>> {
        let mut next = Kept {
            endpoints: BTreeMap::new(),
            last: self.kept.last,
        };
        let mut assigned = BTreeMap::new();
        let mut new = Vec::new();
        for name in names {
            match self.kept.endpoints.get(&name.to_string()) {
                Some(&id) => {
                    next.endpoints.insert(name.to_string(), id);
                    assigned.insert(id, name.clone());
                }
                None => new.push(name),
            }
        }
        for name in new {
            let id = self
                .free(&assigned, &mut next.last, capacity)
                .ok_or_else(|| NoNumber {
                    name: name.to_string(),
                    capacity: capacity - 1,
                })?;
            next.endpoints.insert(name.to_string(), id);
            assigned.insert(id, name.clone());
        }
        if next.endpoints != self.kept.endpoints {
            write(&self.path, &next)
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            self.kept = next;
        }
        Ok(assigned)
    }

    fn free(
        &self,
        assigned: &BTreeMap<u16, ObjectName>,
        last: &mut u16,
        capacity: usize,
    ) -> Option<u16> {
        // Numbers that end with this change are not free yet: the kernel still has their words.
        let taken = |id: &u16| {
            assigned.contains_key(id)
                || self.foreign.contains(id)
                || self.kept.endpoints.values().any(|kept| kept == id)
        };
        let highest = u16::try_from(capacity.saturating_sub(1)).unwrap_or(u16::MAX);
        let after = (last.saturating_add(1)..=highest).chain(1..=*last);
        let id = after.into_iter().find(|id| *id <= highest && !taken(id))?;
        *last = id;
        Some(id)
    }
}

/// Whole or not at all.
fn write(path: &Path, kept: &Kept) -> anyhow::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(kept)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ObjectName> {
        names
            .iter()
            .map(|name| ObjectName::new("shop", *name))
            .collect()
    }

    fn open(folder: &Path) -> Registry {
        Registry::open(folder, &Programmed::default()).unwrap()
    }

    #[test]
    fn an_endpoint_keeps_its_number_across_agents() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path())
            .assign(names(&["b", "a"]).iter(), 16)
            .unwrap();
        let second = open(folder.path())
            .assign(names(&["0", "a", "b"]).iter(), 16)
            .unwrap();
        for (id, name) in first {
            assert_eq!(second[&id], name);
        }
    }

    #[test]
    fn a_number_is_not_used_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = open(folder.path());
        let first = registry.assign(names(&["a"]).iter(), 16).unwrap();
        let second = registry.assign(names(&["b"]).iter(), 16).unwrap();
        let third = registry.assign(names(&["c"]).iter(), 16).unwrap();
        let ids: Vec<_> = [first, second, third]
            .iter()
            .flat_map(|map| map.keys().copied())
            .collect();
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn too_many_endpoints_are_refused_and_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = open(folder.path());
        registry.assign(names(&["a"]).iter(), 3).unwrap();
        let error = registry
            .assign(names(&["a", "b", "c"]).iter(), 3)
            .unwrap_err();
        assert!(
            error.to_string().contains("room for 2 endpoints"),
            "{error}"
        );
        assert_eq!(registry.kept.endpoints.len(), 1);
    }

    #[test]
    fn a_broken_file_is_survived() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("endpoints.json"), "{").unwrap();
        assert_eq!(
            open(folder.path())
                .assign(names(&["a"]).iter(), 16)
                .unwrap()
                .len(),
            1
        );
    }
}
