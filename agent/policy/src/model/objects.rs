//! A map of objects that many worlds share until one of them changes it.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// A [`BTreeMap`] that is copied when it is changed, and not when it is cloned: a world follows another of which
/// all but one object is the same, ten thousands of them, many times a second.
#[derive(PartialEq, Eq)]
pub struct Objects<K, V>(Arc<BTreeMap<K, V>>);

impl<K, V> Objects<K, V> {
    /// Whether both are the same map, which says that they are equal, at once. Equal ones need not be the same.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K, V> Deref for Objects<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Clone, V: Clone> DerefMut for Objects<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<K, V> Clone for Objects<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Objects<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Objects<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Objects<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(objects: I) -> Self {
        BTreeMap::from_iter(objects).into()
    }
}

impl<K, V> From<BTreeMap<K, V>> for Objects<K, V> {
    fn from(objects: BTreeMap<K, V>) -> Self {
        Self(Arc::new(objects))
    }
}

impl<K: Ord, V, const OBJECTS: usize> From<[(K, V); OBJECTS]> for Objects<K, V> {
    fn from(objects: [(K, V); OBJECTS]) -> Self {
        objects.into_iter().collect()
    }
}

impl<'o, K, V> IntoIterator for &'o Objects<K, V> {
    type Item = (&'o K, &'o V);
    type IntoIter = btree_map::Iter<'o, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
