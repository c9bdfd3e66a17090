use super::*;

/// What is written must be what comes out: a keyword that utoipa does not know would get lost.
#[test]
fn schemas_survive_the_way_through_utoipa() {
    for value in [
        strings_value(STOPS_MAX),
        messages_value(),
        tools_value(),
        prompt_value(128, &json!({ "type": "string", "minLength": 1 })),
        schema_value(),
        json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": "number", "minimum": -100, "maximum": 100 },
            "propertyNames": { "type": "string", "pattern": "^[0-9]{1,9}$" },
            "maxProperties": 1024,
        }),
    ] {
        let back = serde_json::to_value(parsed(value.clone())).unwrap();
        assert_eq!(back, value);
    }
}
