//! A stack of layers.

use std::sync::Arc;

use vmm_api::PAGE_SIZE;

use crate::{Layer, LayerError};

/// The layers of one memory, oldest first. The newest layer that has a page provides it; a page of no layer is zero.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    layers: Vec<Arc<Layer>>,
}

impl Stack {
    /// Creates a stack from layers, oldest first.
    pub fn new(layers: Vec<Arc<Layer>>) -> Self {
        Self { layers }
    }

    /// Returns the layer that provides a page; `None` for a zero page.
    pub fn find(&self, page: u32) -> Option<&Layer> {
        let layer = self.layers.iter().rev().find(|layer| layer.has(page))?;
        (!layer.is_zero(page)).then_some(layer)
    }

    /// Reads a page and checks its digest.
    pub fn read(&self, page: u32, into: &mut [u8; PAGE_SIZE]) -> Result<(), LayerError> {
        match self.find(page) {
            Some(layer) => layer.read(page, into),
            None => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// Returns the layers, oldest first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }
}
