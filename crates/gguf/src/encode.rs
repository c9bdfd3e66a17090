//! Owns the byte form of metadata and of the tensor table. The writer and the fingerprint use it.

use std::io::{self, Write};

use crate::tensor::TensorInfo;
use crate::value::{Array, Value};

pub(crate) fn bytes(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)
}

/// A value's type and the value.
pub(crate) fn typed_value(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    out.write_all(&(value.value_type() as u32).to_le_bytes())?;
    match value {
        Value::U8(v) => out.write_all(&v.to_le_bytes()),
        Value::I8(v) => out.write_all(&v.to_le_bytes()),
        Value::U16(v) => out.write_all(&v.to_le_bytes()),
        Value::I16(v) => out.write_all(&v.to_le_bytes()),
        Value::U32(v) => out.write_all(&v.to_le_bytes()),
        Value::I32(v) => out.write_all(&v.to_le_bytes()),
        Value::F32(v) => out.write_all(&v.to_le_bytes()),
        Value::U64(v) => out.write_all(&v.to_le_bytes()),
        Value::I64(v) => out.write_all(&v.to_le_bytes()),
        Value::F64(v) => out.write_all(&v.to_le_bytes()),
        Value::Bool(v) => out.write_all(&[u8::from(*v)]),
        Value::String(v) => bytes(out, v.as_bytes()),
        Value::Array(v) => array(out, v),
    }
}

fn array(out: &mut dyn Write, array_value: &Array) -> io::Result<()> {
    out.write_all(&(array_value.element_type() as u32).to_le_bytes())?;
    out.write_all(&(array_value.len() as u64).to_le_bytes())?;
    macro_rules! numbers {
        ($values:expr) => {
            $values
                .iter()
                .try_for_each(|v| out.write_all(&v.to_le_bytes()))
        };
    }
    match array_value {
        Array::U8(v) => out.write_all(v),
        Array::I8(v) => numbers!(v),
        Array::U16(v) => numbers!(v),
        Array::I16(v) => numbers!(v),
        Array::U32(v) => numbers!(v),
        Array::I32(v) => numbers!(v),
        Array::F32(v) => numbers!(v),
        Array::U64(v) => numbers!(v),
        Array::I64(v) => numbers!(v),
        Array::F64(v) => numbers!(v),
        Array::Bool(v) => v.iter().try_for_each(|&b| out.write_all(&[u8::from(b)])),
        Array::String(v) => v.iter().try_for_each(|s| bytes(out, s)),
        Array::Array(v) => v.iter().try_for_each(|a| array(out, a)),
    }
}

/// Name, shape and type of a tensor: a table row without its offset.
pub(crate) fn tensor(out: &mut dyn Write, tensor: &TensorInfo) -> io::Result<()> {
    bytes(out, tensor.name.as_bytes())?;
    out.write_all(&(tensor.dims.len() as u32).to_le_bytes())?;
    tensor
        .dims
        .iter()
        .try_for_each(|d| out.write_all(&d.to_le_bytes()))?;
    out.write_all(&tensor.ggml_type.id().to_le_bytes())
}
