//! The interfaces of one look, and what has been announced since.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use agent_policy::model::EndpointSpec;

use crate::datapath::link::{self, Link, LinkError};

/// One list serves every endpoint of a look: to ask the kernel for each would make the look, and with it
/// the time until the last of them is attached, grow with their number.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: BTreeMap<u32, Link>,
    indices: BTreeMap<String, u32>,
}

impl Links {
    /// Those of the calling thread's network namespace.
    pub(crate) fn list() -> Result<Self, LinkError> {
        let mut links = Self::default();
        for link in link::links()? {
            links.insert(link);
        }
        Ok(links)
    }

    /// It has come, or something about it has changed.
    pub(crate) fn insert(&mut self, link: Link) {
        self.remove(link.index);
        self.indices.insert(link.name.clone(), link.index);
        self.links.insert(link.index, link);
    }

    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(Link { name, .. }) = self.links.remove(&index)
            && self.indices.get(&name) == Some(&index)
        {
            self.indices.remove(&name);
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Which of them are host sides, by our numbers of the namespaces that they lead to.
    pub(crate) fn host_sides(&self) -> BTreeMap<i32, BTreeSet<u32>> {
        let mut sides: BTreeMap<i32, BTreeSet<u32>> = BTreeMap::new();
        for link in self
            .iter()
            .filter(|link| link.kind.as_deref() == Some("veth"))
        {
            if let Some(number) = link.leads_to_netns {
                sides.entry(number).or_default().insert(link.index);
            }
        }
        sides
    }

    /// See [`link::resolve`].
    pub(crate) fn resolve(&self, spec: &EndpointSpec) -> Option<Result<Link, LinkError>> {
        match spec {
            EndpointSpec::Interface(name) => Some(self.named(name)),
            EndpointSpec::Netns(path) => Some(link::host_side(self.iter(), Path::new(path))),
            EndpointSpec::Cgroup(_) | EndpointSpec::SystemdUnit(_) => None,
        }
    }

    fn named(&self, name: &str) -> Result<Link, LinkError> {
        let index = self.indices.get(name);
        let link = index.and_then(|index| self.links.get(index)).cloned();
        link.ok_or_else(|| LinkError::NoInterface(name.to_owned()))
            .and_then(link::ethernet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: Some("veth".to_owned()),
            leads_to: None,
            leads_to_netns: None,
            hardware: 1,
            mac: None,
            is_up: false,
        }
    }

    fn index_of(links: &Links, name: &str) -> Option<u32> {
        let spec = EndpointSpec::Interface(name.to_owned());
        links.resolve(&spec)?.ok().map(|link| link.index)
    }

    #[test]
    fn an_interface_that_is_renamed_has_its_old_name_no_longer() {
        let mut links = Links::default();
        links.insert(link(1, "tmp"));
        links.insert(link(1, "veth"));
        assert_eq!(index_of(&links, "tmp"), None);
        assert_eq!(index_of(&links, "veth"), Some(1));
    }

    #[test]
    fn the_end_of_one_is_not_that_of_its_successor_by_name() {
        let mut links = Links::default();
        links.insert(link(1, "veth"));
        links.insert(link(2, "veth"));
        links.remove(1);
        assert_eq!(index_of(&links, "veth"), Some(2));
        links.remove(2);
        assert_eq!(index_of(&links, "veth"), None);
    }
}
