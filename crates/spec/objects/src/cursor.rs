//! A node of the file together with its path, so that a message can name it.

use crate::yaml::{Node, Place, Value};

/// Where a reader stands in the file.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) node: &'a Node,
    /// The place of its key, or its own in a list.
    pub(crate) key_place: Place,
    /// Such as `services.web.ports[0]`; empty at the root.
    pub(crate) path: String,
}

impl<'a> Cursor<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node, key_place: node.place, path: String::new() }
    }

    /// What stands under `key`, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let entry = self.node.entry(key).filter(|entry| !entry.value.is_null())?;
        Some(self.child(&entry.key, &entry.value, entry.key_place))
    }

    /// The entries of a mapping, those with null included; none of anything else.
    pub(crate) fn entries(&self) -> Vec<(String, Self)> {
        match &self.node.value {
            Value::Mapping(entries) => entries
                .iter()
                .map(|entry| {
                    (entry.key.clone(), self.child(&entry.key, &entry.value, entry.key_place))
                })
                .collect(),
            Value::Scalar { .. } | Value::Sequence(_) => Vec::new(),
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> Vec<Self> {
        match &self.node.value {
            Value::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Self {
                    node,
                    key_place: node.place,
                    path: format!("{}[{index}]", self.path),
                })
                .collect(),
            Value::Scalar { .. } | Value::Mapping(_) => Vec::new(),
        }
    }

    /// The text of a scalar that is not null.
    pub(crate) fn scalar(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => Some(text),
            Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    pub(crate) fn is_sequence(&self) -> bool {
        matches!(self.node.value, Value::Sequence(_))
    }

    pub(crate) fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Mapping(_))
    }

    fn child(&self, key: &str, node: &'a Node, key_place: Place) -> Self {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { node, key_place, path }
    }
}
