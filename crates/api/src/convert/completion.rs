//! Completion requests: one engine request per prompt.

use engine::{Input, ModelInfo, Request};

use super::{count, in_range, sampling};
use crate::error::ApiError;
use crate::openai::completion::CompletionRequest;
use crate::openai::input::Prompt;

/// Engine requests of a completion request; the choices of the first come first.
pub(crate) fn requests(
    mut wire: CompletionRequest,
    info: &ModelInfo,
) -> Result<Vec<Request>, ApiError> {
    if wire
        .suffix
        .as_ref()
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return Err(ApiError::unsupported(
            "suffix",
            "suffix: text can't be filled in before a suffix here; hint: leave it out",
        ));
    }
    in_range(wire.best_of, 1..=1, "best_of")?;
    let logprobs = count(wire.logprobs, 0..=20, "logprobs")?;
    if wire.echo == Some(true) && logprobs.is_some() {
        return Err(ApiError::unsupported(
            "logprobs",
            "logprobs: not known for the prompt; hint: leave out echo",
        ));
    }
    let mut request = Request::new(info.name.clone(), Input::Text(String::new()));
    sampling::apply(wire.common(), &mut request, info)?;
    request.logprobs = logprobs;
    let inputs: Vec<Input> = match wire.prompt {
        Prompt::Texts(texts) => texts.into_iter().map(Input::Text).collect(),
        Prompt::Tokens(lists) => lists
            .into_iter()
            .enumerate()
            .map(|(index, tokens)| {
                check_tokens(&tokens, info, &format!("prompt[{index}]"))?;
                Ok(Input::Tokens(tokens))
            })
            .collect::<Result<_, ApiError>>()?,
    };
    if inputs.is_empty() {
        return Err(ApiError::invalid("prompt", "prompt: must not be empty"));
    }
    let choices = i64::try_from(inputs.len())
        .unwrap_or(i64::MAX)
        .saturating_mul(i64::from(request.n));
    if choices > sampling::CHOICES_MAX {
        return Err(ApiError::invalid(
            "prompt",
            format!(
                "prompt: {choices} choices in all, at most {} are made; \
                 hint: send fewer prompts at a time",
                sampling::CHOICES_MAX
            ),
        ));
    }
    Ok(inputs
        .into_iter()
        .map(|input| Request {
            input,
            ..request.clone()
        })
        .collect())
}

/// Checks that every token is one of the model's.
pub(crate) fn check_tokens(
    tokens: &[engine::TokenId],
    info: &ModelInfo,
    param: &str,
) -> Result<(), ApiError> {
    let outside = tokens
        .iter()
        .find(|&&token| token < 0 || token.cast_unsigned() >= info.vocabulary_tokens);
    match outside {
        Some(token) => Err(ApiError::invalid(
            param,
            format!(
                "{param}: {token} is not a token id of this model, which has {}",
                info.vocabulary_tokens
            ),
        )),
        None if tokens.is_empty() => Err(ApiError::invalid(
            param,
            format!("{param}: must not be empty"),
        )),
        None => Ok(()),
    }
}
