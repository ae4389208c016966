//! Names of a function body: every `{ … }` has its own, and the tree spells them uniquely.

use std::collections::HashMap;

/// Nested scopes.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    parents: Vec<usize>,
    variables: Vec<HashMap<String, String>>,
    labels: Vec<HashMap<String, String>>,
    used: HashMap<String, u32>,
    current: usize,
}

impl Scopes {
    pub(crate) fn new() -> Self {
        Self {
            parents: vec![usize::MAX],
            variables: vec![HashMap::new()],
            labels: vec![HashMap::new()],
            ..Self::default()
        }
    }

    pub(crate) fn open(&mut self) {
        self.parents.push(self.current);
        self.variables.push(HashMap::new());
        self.labels.push(HashMap::new());
        self.current = self.parents.len() - 1;
    }

    /// Leaves a scope; false when it was the outermost.
    pub(crate) fn close(&mut self) -> bool {
        let parent = self.parents[self.current];
        if parent == usize::MAX {
            return false;
        }
        self.current = parent;
        true
    }

    pub(crate) fn current(&self) -> usize {
        self.current
    }

    fn unique(&mut self, name: &str) -> String {
        let count = self.used.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}#{count}") }
    }

    pub(crate) fn declare(&mut self, name: &str) -> String {
        let unique = self.unique(name);
        self.variables[self.current].insert(name.to_owned(), unique.clone());
        unique
    }

    pub(crate) fn label(&mut self, name: &str) -> String {
        let unique = self.unique(name);
        self.labels[self.current].insert(name.to_owned(), unique.clone());
        unique
    }

    fn find<'a>(&self, tables: &'a [HashMap<String, String>], name: &str, from: usize) -> Option<&'a str> {
        let mut scope = from;
        while scope != usize::MAX {
            if let Some(found) = tables[scope].get(name) {
                return Some(found);
            }
            scope = self.parents[scope];
        }
        None
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.find(&self.variables, name, self.current)
    }

    pub(crate) fn find_label(&self, name: &str, from: usize) -> Option<&str> {
        self.find(&self.labels, name, from)
    }
}
