//! Keyword arguments that many tasks have in common: encoded once.
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;

use super::encode::{BLOB_BYTES_MAX, put_str};
use super::*;

/// A keyword argument that many tasks have in common.
pub(crate) struct Constant<'py> {
    /// Its encoded name.
    name: Vec<u8>,
    /// Its value.
    pub(crate) value: ConstantValue<'py>,
}

/// How the tasks get a constant.
pub(crate) enum ConstantValue<'py> {
    /// Each has a copy of these bytes. What they cite, large parts alone, every task cites first.
    Encoded(Vec<u8>),
    /// Each depends on the task with this index, which returns it.
    Task(u32),
    /// It cites nodes, so it is encoded for each.
    Citing(Bound<'py, PyAny>),
}

impl Encoder {
    /// Encodes the keyword arguments that many tasks have in common.
    pub(crate) fn constants<'py>(&mut self, passed: Passed<'_, 'py>) -> PyResult<Vec<Constant<'py>>> {
        if passed.names.len() > KEYWORDS_MAX {
            return Err(PyOverflowError::new_err("map takes at most 255 constants"));
        }
        let mut constants = Vec::new();
        for (name, value) in passed.names.iter().zip(passed.named) {
            self.clear(self.home);
            let name = self.encoded(|encoder| match put_str(name, BLOB_BYTES_MAX, &mut encoder.out) {
                true => Ok(()),
                false => name.extract::<&str>().map(drop),
            })?;
            let encoded = self.encoded(|encoder| encoder.constant(value))?;
            let value = match self.cited.share() {
                true => ConstantValue::Encoded(encoded),
                false => ConstantValue::Citing(value.clone()),
            };
            constants.push(Constant { name, value });
        }
        Ok(constants)
    }

    /// Encodes the positional arguments of one of the tasks, and the constants.
    #[inline]
    pub(crate) fn arguments_with(
        &mut self,
        positional: &[Bound<'_, PyAny>],
        constants: &[Constant<'_>],
    ) -> PyResult<()> {
        let passed = Passed::positional(positional);
        if !self.in_parts(passed, constants.len() as u8)? {
            self.whole(passed, constants.len() as u8)?;
        }
        for constant in constants {
            self.out.extend_from_slice(&constant.name);
            match &constant.value {
                ConstantValue::Encoded(bytes) => self.out.extend_from_slice(bytes),
                ConstantValue::Task(index) => self.put_result_of(*index),
                ConstantValue::Citing(value) => self.constant(value)?,
            }
        }
        Ok(())
    }

    fn constant(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.atom(value) {
            // Alone it shares nothing with another argument.
            self.argument(value, Passed::positional(&[]))?;
        }
        Ok(())
    }

    fn encoded(&mut self, encode: impl FnOnce(&mut Self) -> PyResult<()>) -> PyResult<Vec<u8>> {
        encode(self)?;
        Ok(std::mem::take(&mut self.out))
    }
}
