"""Tools that people define for chat programs, and the ways in which they ask for them.

A `Kind` is a family of tools (weather, mail, …); `Kind.make` draws one concrete tool from it, with its
own names, descriptions and schema, so that the model learns to read schemas rather than names.
"""
import json
import re
from dataclasses import dataclass

import phrases
import values as v
from grammar import alternatives, say
from synonyms import loosened, thinned

P = {  # slot: (parameter names, type, descriptions, generator)
    "city": ("city|location|place|town|where|city_name", "string", "City name|The city|Name of the city|The location, e.g. a city|Where", v.city),
    "from": ("origin|from|start|departure|from_city|source", "string", "Where the trip starts|Departure city|Start of the trip", v.city),
    "to": ("destination|to|target|arrival|to_city|goal", "string", "Where the trip ends|Arrival city|Destination of the trip", v.city),
    "zone": ("timezone|city|place|location|zone|tz", "string", "City or time zone|The place|Place whose time is wanted", v.city),
    "a": ("a|x|first|left|number1|num1", "number|integer", "First number|The first operand|Left number", v.number),
    "b": ("b|y|second|right|number2|num2", "number|integer", "Second number|The second operand|Right number", v.number),
    "n": ("n|number|value|x", "integer", "The number|Input number", v.integer),
    "query": ("query|q|text|search|term|keywords|question", "string", "Search terms|What to look for|The query", phrases.query),
    "person": ("name|person|contact|who|recipient|to|user|friend", "string", "Name of the person|The person|Contact name", v.full_name),
    "email": ("to|recipient|address|email|mail_to", "string", "Mail address|Address of the recipient|Receiver", v.email),
    "subject": ("subject|title|topic|headline", "string", "Subject line|Subject of the mail", phrases.subject),
    "body": ("body|text|message|content|msg", "string", "Text of the message|The message|Content to send", phrases.message),
    "value": ("value|amount|quantity|number", "number", "The value|Amount to convert|How much", v.number),
    "unit_a": ("from_unit|from|unit|source_unit", "string", "Unit of the value|Source unit", v.sometimes_odd(v.UNITS)),
    "unit_b": ("to_unit|to|target_unit|into", "string", "Target unit|Unit to convert to", v.sometimes_odd(v.UNITS)),
    "cur_a": ("from_currency|from|base|source", "string", "Currency of the amount|Source currency", v.sometimes_odd(v.CURRENCIES)),
    "cur_b": ("to_currency|to|target|quote", "string", "Target currency|Currency to convert to", v.sometimes_odd(v.CURRENCIES)),
    "title": ("title|name|event|summary|what|task|text|item", "string", "Title|What it is about|Name of the entry", phrases.task),
    "date": ("date|day|when|on", "string", "Day|The date|Date, as the user said it", v.date),
    "time": ("time|at|hour|start_time|start", "string", "Time of day|Clock time|The time", v.clock),
    "room": ("room|area|location|where|zone", "string", "The room|Which room|Name of the room", v.sometimes_odd(v.ROOMS)),
    "colour": ("color|colour|shade", "string", "Colour|The colour", v.sometimes_odd(v.COLOURS)),
    "state": ("state|action|mode|power", "string", "on or off|Wanted state", v.pick_of("on|off")),
    "percent": ("level|brightness|percent|value|volume", "integer", "Percent|0 to 100|Level in percent", lambda r: r.randint(0, 100)),
    "degrees": ("temperature|degrees|target|value", "number", "Degrees|Wanted temperature", lambda r: r.choice([r.randint(5, 35), r.randint(30, 60) / 2])),
    "minutes": ("minutes|duration|length|duration_minutes|mins", "integer", "Minutes|Length in minutes", v.small_integer),
    "seconds": ("seconds|duration|secs|delay", "integer", "Seconds|Length in seconds", v.small_integer),
    "count": ("count|amount|quantity|number|n|limit", "integer", "How many|Number of items", v.small_integer),
    "low": ("min|low|minimum|from|start", "integer", "Smallest value|Lower bound", v.integer),
    "high": ("max|high|maximum|to|end", "integer", "Largest value|Upper bound", v.integer),
    "symbol": ("symbol|ticker|stock|code", "string", "Ticker symbol|The stock symbol", v.symbol),
    "text": ("text|content|input|phrase|sentence", "string", "The text|Text to work on", phrases.message),
    "language": ("language|target_language|to|lang|target", "string", "Language|Target language", v.sometimes_odd(v.LANGUAGES)),
    "song": ("song|title|track|name", "string", "Title of the song|Song name", phrases.title),
    "artist": ("artist|band|by|singer", "string", "Artist|Who plays it", v.full_name),
    "file": ("path|file|filename|name|file_name", "string", "Path of the file|The file|File name", v.filename),
    "path": ("path|folder|directory|dir", "string", "The folder|Directory to look in", v.path),
    "topic": ("topic|subject|category|about|query", "string", "Topic|What it is about", phrases.query),
    "code": ("id|code|number|order_id|key|reference", "string", "Identifier|The number|Code", v.code),
    "url": ("url|link|address|page|site", "string", "The address|Web address", v.url),
    "phone": ("phone|number|phone_number|to", "string", "Phone number|Number to call", lambda r: "".join(str(r.randint(0, 9)) for _ in range(r.randint(5, 9)))),
    "product": ("product|item|article|name|what", "string", "The product|What to buy", lambda r: phrases.fill(["{n}", "{a} {n}", "{n} {n2}"], r)),
    "word": ("word|term|text", "string", "The word", v.any_word),
    "species": ("kind|type|sort|category", "string", "The kind|Which kind", v.any_word),
}
PLEASE = "[please|can you|could you|would you|will you|I want you to|I need you to|kindly|now|hey[,]|please can you|I would like you to|I want to|I need to|I would like to|let us|go and|be so kind and|just|I ask you to|help me to|try to] "
ASKING = "(what is|what's|tell me|give me|show me|I want to know|I need|get me|can you tell me|do you know|find out|could you tell me|let me know|please tell me|look up|check|I would like to know|may I ask|what was|what would be|how about|I wonder what is|please give me|could you give me|can you show me|do you have|I must know|please say|say|I am looking for|report|please find out|who knows|I have to know|please check)"
# names; descriptions; slots in schema order; optional slots; ways to ask
RAW = """
get_weather|weather|current_weather|get_current_weather|weather_now|fetch_weather|lookup_weather|get_forecast ; Current weather of a city|Get the weather|Weather at a place|Returns the weather for a location ; city date ; date ; @ask the weather (in|for|at) {city}|(how is|how's|what is) the weather (in|at|like in) {city} [now|today|right now]|is it (raining|cold|warm|sunny|windy|hot|snowing) in {city} [now|today]|weather in {city}|what is the weather like in {city}|how (warm|cold|hot) is it in {city}|do I need an umbrella in {city}|@ask the weather (in|for) {city} (on|for) {date}|@ask the temperature in {city}|will it (rain|snow) in {city}|{city} weather|@ask the forecast for {city}|what weather (do they|will they|does one) have in {city}|how does the weather look in {city} (on|for) {date}|I am (going to|flying to|visiting|driving to|on my way to|moving to|staying in) {city}[,|.|;] (what is|how is|how will|tell me) the weather [be|] [there|over there]|my (mother|brother|boss|friend|team|sister|cousin) is in {city}[,|.] (is it|will it be) (warm|cold|rainy|sunny|windy|hot) there|(will|does) {city} (get|have|see) (rain|snow|sun|sunshine|a storm) [today|soon]|what are the (temperatures|conditions) in {city}|how (many|much) (degrees|rain|wind) (are there|is there|do they have) in {city}|should I (take|pack|bring) (a coat|an umbrella|sunglasses|a jacket) (to|for|in) {city}|(see|find out|check) (how|what) the weather is [like] in {city}|how is it outside in {city}|is the (sun|rain) (out|falling) in {city}
get_time|current_time|time_in|clock|get_current_time|time_now|world_clock ; Current time at a place|Get the time|Time in a city or zone ; zone ; ; what time is it in {zone}|@ask the (current|local|exact|) time in {zone}|how late is it in {zone}|(current|local) time in {zone}|time in {zone} [please|now]|what is the (clock|hour) in {zone}|which time do they have in {zone} [now]|my (mother|brother|boss|cousin|team|sister|colleague) (is|lives|works|sits) in {zone}[,|.] (what time is it there|how late is it there|what time does he have|which time is it for (him|her|them)|what is (his|her|the) local time)|(what|which) time is it [right now|now|at the moment|currently] in {zone}|what time (do|does) (they|people|one|my friend) have in {zone} [now|at the moment]|is it (late|night|morning|already evening|early) in {zone}|(what|which) hour is it in {zone}|what does the clock say in {zone}|[I am calling {zone}|I want to call {zone}|I have a meeting with {zone}][,|.] what time is it there|the time in {zone}[, please|]|when is it now in {zone}
add|add_numbers|sum|plus|calculate_sum|addition ; Add two numbers|Sum of two numbers|Adds a and b ; a b ; ; what is {a} (plus|+) {b}|add {a} (and|to) {b}|@please add {a} and {b}|@ask the sum of {a} and {b}|(calculate|compute) {a} (plus|+) {b}|how much is {a} (plus|+|and) {b}|{a} (plus|+) {b}|sum {a} and {b}|@please sum up {a} and {b}|what do {a} and {b} (make|give|add up to|come to) [together]|what do I (have|get) if I (add|put together|sum) {a} and {b}|what (does|do) {a} (plus|and) {b} (make|give|equal|come to)|{a} and {b}[,] (added|together|what is the sum)|put {a} and {b} together|(the|what is the) total of {a} and {b}|add [the|these] numbers {a} and {b} [for me|up]|(work out|find|tell me) {a} plus {b}
multiply|multiply_numbers|product|times|mul ; Multiply two numbers|Product of two numbers ; a b ; ; what is {a} (times|multiplied by|x|*) {b}|multiply {a} (by|and|with) {b}|@ask the product of {a} and {b}|(calculate|compute) {a} (times|*) {b}|how much is {a} times {b}|{a} (times|*) {b}|what (does|do) {a} (times|multiplied by) {b} (give|equal|come to|yield)|multiply (these numbers:|both|the two numbers|together) {a} and {b}|@please (multiply|take) {a} (times|by|with) {b}|what do I get (when|if) I multiply {a} (by|with|and) {b}|(work out|find|tell me) {a} times {b}|the product of [the numbers] {a} and {b}
subtract|minus|difference|subtract_numbers ; Subtract b from a|Difference of two numbers ; a b ; ; what is {a} (minus|-) {b}|subtract {b} from {a}|@ask the difference (of|between) {a} and {b}|(calculate|compute) {a} (minus|-) {b}|take {b} away from {a}|{a} minus {b}|how much is {a} minus {b}|what (is left|remains) when I take {b} (from|away from|off) {a}|{a} less {b}|@please subtract {b} from {a}|(work out|find|tell me) {a} minus {b}|what (do|does) {a} minus {b} (make|give)|by how much is {a} (larger|more|bigger) than {b}
divide|division|divide_numbers|quotient ; Divide a by b|Quotient of two numbers ; a b ; ; what is {a} (divided by|over|/) {b}|divide {a} by {b}|(calculate|compute) {a} divided by {b}|how much is {a} divided by {b}|@ask the quotient of {a} and {b}|what (do|does) {a} divided by {b} (make|give)|@please divide {a} by {b}|share {a} (among|between) {b}|split {a} (into|in) {b} [equal] parts|how (often|many times) does {b} go into {a}|(work out|find|tell me) {a} divided by {b}
square_root|sqrt|factorial|is_prime|fibonacci|double ; Works on one number|Compute it for a number|A function of one number ; n ; ; @please (call|run|use|apply) {fn} (on|with|for) {n}|{fn} of {n}|@ask {fn} of {n}|(compute|calculate) {fn} (of|for) {n}|what is {fn} of {n}
search|web_search|search_web|google|lookup|find|search_docs|search_internet ; Search the web|Look something up|Find pages for a query|Searches for text ; query count ; count ; search [the web|the internet|online|the docs] for {query}|@please search for {query}|(look up|google|find) {query}|find (pages|information|something|articles) (about|on) {query}|(do|run|make) a (search|web search) for {query}|search: {query}|I need information (about|on) {query}|look for {query} [on the web|online]|search for {query} and (give|show) me {count} results|what does the web say about {query}|see what you can find about {query}|find {count} (pages|results) about {query}|(look|search|hunt|dig) (on the web|online|on the internet|in the web) for {query}|@please (look up|google|search|find) {query} (on the web|online|on the internet|on the net|in the web)|what can you find [online|on the web] (on|about) {query}|I want to (read|know more|learn) about {query}[, search it|, look it up|]|@please (do|make) (a|an|one) (web|internet|online) search (for|on|about) {query}|search query: {query}|google for {query}|get me [some] (results|pages|links) (for|about|on) {query}|use the web to find {query}
send_mail|send_email|email|mail|compose_mail|write_mail ; Send a mail|Send an email to somebody|Writes and sends a message ; email subject body ; subject body ; send (a mail|an email|mail|an e-mail) to {email} with [the] subject {subject} and [the] (body|text|message) {body}|@please (mail|email) {email} (about {subject}:|with the text|saying|that says) {body}|write (a mail|an email) to {email}[,] subject {subject}, text {body}|(email|mail) {email}: {body}|tell {email} by mail: {body}|send {body} to {email}|@please write to {email} that {body}|send {email} (a mail|an email) (saying|with the text|that says) {body}|(email|mail) {email} with subject {subject}|send (a mail|an email|an e-mail|a message) to {email}[,| and] the (subject|title) (is|should be|shall be) {subject}[,| and| and the] (text|body|message|content) (is|should be|shall be|shall say) {body}|@please (send|write) (a mail|an email|mail|an e-mail) to {email} with [the] subject {subject} and [the|with the] (body|text|content|message) {body}|mail to {email}, subject: {subject}, (body|text|message): {body}|@please (send|mail) {email} (an email|a mail|mail) with the subject {subject} [and|that says|saying|, it should say|and the words] {body}|subject {subject}, text {body}, (send it|mail it|send that) to {email}|an email to {email}: {body}|@please email {email} the (text|message|words) {body}|let {email} know by (mail|email) that {body}|@please send an email to {email}[,|;|.] subject: {subject}[,|;|.] (body|text): {body}
send_message|message|text|send_sms|chat_message|notify ; Send a message to a person|Sends a text message|Message somebody ; person body ; ; (tell|text|message) {person} (that|:|this:|) {body}|send (a message|a text|an sms|a note) to {person} (saying|that says|with the text|:) {body}|send {person} (a message|a text|the message|the text)[:|saying] {body}|@please let {person} know [that|:] {body}|message {person} saying {body}|write {person} (a message:|:) {body}|(write|send|text|message) to {person}: {body}|@please (send|write) {person} (a|the) (message|text|note|sms) (that|which) (says|reads) {body}|@please tell {person} [that] {body}|{person} (should|must|has to) know [that] {body}|@please (message|text) {person} [with] [the words|the text|that] {body}|drop {person} a line: {body}|a message (for|to) {person}: {body}|say {body} to {person}|@please send {body} to {person}|write {person} that {body}
convert|convert_units|unit_converter|convert_unit|unit_convert|units ; Convert a value between units|Unit conversion ; value unit_a unit_b ; ; convert {value} {unit_a} (to|into) {unit_b}|how (many|much) {unit_b} (are|is) {value} {unit_a}|what (is|are) {value} {unit_a} in {unit_b}|{value} {unit_a} (in|to|into) {unit_b}|@please (turn|change|express) {value} {unit_a} (into|to|in) {unit_b}|how many {unit_b} are in {value} {unit_a}|@ask {value} {unit_a} in {unit_b}|how many {unit_b} (do I have in|make|make up|fit in|go into|do I get from|equal|correspond to) {value} {unit_a}|what (does|do) {value} {unit_a} (make|equal|come to|give) in {unit_b}|I (have|need|want) {value} {unit_a} (in|as|expressed in) {unit_b}|{value} {unit_a} (is|are|makes|equals) how many {unit_b}|from {unit_a} to {unit_b}: {value}|@please (convert|recalculate|work out) {value} {unit_a} (into|to|in|as) {unit_b}|{value} {unit_a}[,] how much is that in {unit_b}|I read {value} {unit_a}[,|.] what is that in {unit_b}
convert_currency|exchange|currency|exchange_rate|convert_money|money_convert ; Convert money|Convert an amount between currencies ; value cur_a cur_b ; ; convert {value} {cur_a} (to|into) {cur_b}|how (many|much) {cur_b} (are|is) {value} {cur_a}|what (is|are) {value} {cur_a} in {cur_b}|(change|exchange) {value} {cur_a} (to|into|for) {cur_b}|{value} {cur_a} (in|to) {cur_b}|how much is {value} {cur_a} in {cur_b}|what (do|would|will) I (get|have|pay|receive) in {cur_b} for {value} {cur_a}|I (have|paid|want to change|got) {value} {cur_a}[,|.] how much is (that|it) in {cur_b}|how much {cur_b} (do|will|would) I get for {value} {cur_a}|what (is|are) {value} {cur_a} worth in {cur_b}|@please (exchange|change|convert|swap) {value} {cur_a} (for|into|to) {cur_b}|{value} {cur_a} (makes|equals|is) how many {cur_b}|I need {value} {cur_a} in {cur_b}|price: {value} {cur_a}, (tell|show) me in {cur_b}
create_event|add_event|calendar|schedule|add_to_calendar|create_meeting|schedule_meeting|new_appointment ; Put an event in the calendar|Create a calendar entry|Schedule something ; title date time ; time ; (put|enter|add) {title} (in|into|to) (my|the) calendar (on|for) {date} at {time}|(schedule|plan) {title} (on|for) {date} at {time}|(create|make|add) (an event|a meeting|an appointment|an entry) (called|named|titled|for|with the title) {title} (on|for) {date} at {time}|(schedule|plan|book) {title} for {date}|new (event|appointment|meeting): {title}, {date}, {time}|@please (put|note) {title} on {date} at {time}|add {title} to (the|my) calendar for {date}|I have {title} on {date} at {time}, [please] (add|note) it|@please (enter|put|add|write) {title} (in|into|to) (the|my) calendar (on|for) {date} at {time}|(on|for) {date} at {time} I have {title}[, please| please|] (enter|add|note|put) it (in|into|to) [my|the] calendar|@please (schedule|plan|arrange|book) {title} (on|for) {date} (at|starting at|, at) {time}|calendar entry {title} on {date} at {time}|(create|make|add) [an] (event|meeting|appointment) {title} (on|for) {date} [at {time}]|@please make an appointment on {date} at {time}[:|,| with the title| called] {title}|{title} is on {date} at {time}, [please|] (add|put) it to my calendar
set_reminder|remind|reminder|add_reminder|remind_me|create_reminder ; Set a reminder|Remind the user of something ; title time ; ; remind me (to|of|about) {title} at {time}|(set|create|add|make) a reminder (for|at) {time} (to|about|for|:) {title}|at {time} remind me (to|of) {title}|@please remind me at {time} (to|of|about) {title}|do not let me forget {title} at {time}|@please remind me (to|of|about) {title} at {time}|@please (set|create|make|add) a reminder (to|for|of|about|:|that says) {title} (at|for) {time}|I (must|should|have to) {title} at {time}[,|.] [please|] remind me|(reminder|remind me)[:] {title}[,| at] {time}|at {time} I (must|have to|should) {title}, [please|] remind me|@please make sure I do not forget to {title} at {time}|I (want|need) a reminder at {time} (to|for|about) {title}
set_light|light|switch_light|lights|control_light|set_lamp|lamp ; Switch a light|Turn the light of a room on or off ; room state ; ; (turn|switch) {state} the (light|lights|lamp) in the {room}|(turn|switch) the (light|lights|lamp) in the {room} {state}|@please (turn|switch) the {room} (light|lights|lamp) {state}|{room} (light|lights) {state}|(light|lights) {state} in the {room}|set the (light|lamp) (in|of) the {room} to {state}|the {room} (light|lamp) should be {state}|I (want|need|would like) the (light|lights|lamp) in the {room} {state}|@please (turn|switch|put) {state} the {room} (light|lights|lamp)|@please (turn|switch|put) {state} the (light|lamp|lights) in (the|my|our) {room}|(make|get|let) the {room} (light|lights|lamp) (go|be) {state}|it should be light {state} in the {room}|the (light|lights|lamp) in the {room} (should|must|can) (go|be|be turned|be switched) {state}|lights in the {room} {state}
set_brightness|dim|dim_light|light_level|brightness ; Set the brightness of a room|Dim the light ; room percent ; ; (set|dim|turn|bring) the (light|lights|brightness) in the {room} to {percent} [percent|%]|(dim|set) the {room} [light|lights|lamp] to {percent} [percent|%]|@please make the {room} {percent} percent bright|brightness (in|of) the {room}: {percent}|{room} lights at {percent} percent|@please (set|dim|turn|put) the (light|lights|lamp|brightness) (in|of) the {room} (to|at|down to|up to) {percent} [percent|%]|{percent} percent (light|brightness) in the {room}|I (want|need|would like) {percent} percent (light|brightness) in the {room}|the {room} (lights|lamp) should (be|shine) at {percent} percent|@please dim the {room} to {percent} [percent|%]
set_color|light_color|lamp_color|set_light_colour ; Set the colour of a lamp|Change the colour of a room's light ; room colour ; ; make the [light in the|lamp in the] {room} {colour}|(set|change|turn) the [light in the|lamp in the|colour of the] {room} to {colour}|@please (make|turn|colour) the {room} (light|lamp|lights) {colour}|I want {colour} light in the {room}|{colour} light in the {room}|@please (make|turn|paint|colour|set) the (light|lamp|lights) in the {room} [to] {colour}|(change|set|turn) the {room} (light|lamp|lights) to {colour}|the (light|lamp) in the {room} should be {colour}|let the {room} (shine|glow|light up) {colour}
set_temperature|thermostat|heating|set_heating|heat ; Set the temperature of a room|Thermostat of a room ; room degrees ; ; (set|heat|bring|turn) the [temperature in the|heating in the|thermostat in the] {room} to {degrees} [degrees|C]|@please (heat|warm) the {room} to {degrees} [degrees]|make it {degrees} degrees in the {room}|I want {degrees} degrees in the {room}|{room} temperature {degrees}|@please (set|turn|put|heat|bring|warm|cool) the {room} (to|up to|down to|at) {degrees} (degrees|C|degrees C)|it should be {degrees} degrees in the {room}|the {room} should (be|have|get) {degrees} degrees|{degrees} degrees in the {room} please|(set|put) the {room} (heating|thermostat|temperature) (to|at) {degrees}|keep the {room} at {degrees} degrees|I (need|would like) the {room} (at|to be) {degrees} degrees
set_timer|timer|start_timer|countdown|kitchen_timer ; Start a timer|Sets a timer in minutes ; minutes title ; title ; (set|start|make) a timer (for|of|to) {minutes} (minutes|min)|(timer|set timer)[:] {minutes} (minutes|min)|(set|start) a {minutes} minute timer|wake me in {minutes} minutes|@please (count|time) {minutes} minutes|(set|start) a {minutes} minute timer for {title}|tell me when {minutes} minutes are over|(set|start) a timer for {minutes} minutes (called|named) {title}|I (want|need|would like) a timer (of|for|over|with|that takes|that rings after) {minutes} (minutes|min)|(a|one) timer (of|for|over) {minutes} minutes|@please (set|start|run) (a|the) timer (for|of|to|on) {minutes} minutes|@please (set|start) a {minutes} minute (timer|countdown)|let a timer run for {minutes} minutes|{minutes} minutes (timer|on the timer|countdown)[, please|]|(ring|beep|call me) (in|after) {minutes} minutes|count down {minutes} minutes|timer for {title}, {minutes} minutes|the {title} needs {minutes} minutes, (start|set) a timer
set_alarm|alarm|wake_up|add_alarm ; Set an alarm|Wake the user ; time ; ; (set|put) (an|the|my) alarm (for|to|at|on) {time}|wake me [up] at {time}|alarm at {time}|@please wake me at {time}|I (need|want) to get up at {time}|@please (set|put) (an|the|my) alarm (for|to|at|on) {time}|@please (wake|get) me up at {time}|I (want|need|have|must|would like) (to wake up|to be woken|to be up|an alarm|to stand up) at {time}|(let|make) (the|my|an) alarm (ring|go off|sound) at {time}|the alarm (should|must|has to) (ring|go off) at {time}|alarm [clock] (for|to) {time}
wait|sleep|pause|delay ; Wait some seconds|Pause for a time ; seconds ; ; wait [for] {seconds} seconds|(pause|sleep) for {seconds} seconds|@please wait {seconds} seconds|hold on for {seconds} seconds|@please (wait|pause|stop|sleep|hold on|do nothing) for {seconds} seconds|(take|make) a break of {seconds} seconds|give me {seconds} seconds|a pause of {seconds} seconds
random_number|random|pick_number|rand ; Random number in a range|Draw a random number ; low high ; ; @ask a random number (between|from) {low} (and|to) {high}|(pick|draw|choose|roll) a [random] number (between|from) {low} (and|to) {high}|random number {low} to {high}|@please (choose|pick|draw) [some|any] number from {low} to {high}|@please (give me|tell me|pick|choose|draw|generate|make) (a|any|one|some) [random] number (between|from) {low} (and|to|up to|through) {high}|I (need|want) a random number (between|from) {low} (and|to) {high}|a (random|lucky) number (between|from) {low} (and|to) {high}|something random from {low} to {high}|any number (between|from) {low} (and|to|up to) {high}
roll_dice|dice|roll|throw_dice ; Roll dice|Throws dice ; count ; ; (roll|throw) {count} dice|@please (roll|throw) {count} dice|let {count} dice roll|I (want|need) to (roll|throw) {count} dice|{count} dice[, please|]|(give me|let me have) a (roll|throw) of {count} dice|@please let {count} dice (roll|fall)
get_stock_price|stock|stock_price|quote|share_price ; Price of a stock|Latest share price ; symbol ; ; @ask the (stock|share|) price of {symbol}|(stock|share) price of {symbol}|how (is|does) {symbol} (doing|stand|trade|trading) [today]|what does (a share of|) {symbol} cost|{symbol} (stock|price|quote)|how much is [one] {symbol} [share|stock] [now|worth]|what is [the] [current|latest] (stock|share|) price (of|for) {symbol} [shares|stock|now|today]|what (does|do) [one|a] {symbol} (share|stock|shares) cost [now|today]|@ask the [current|latest|newest] (price|quote|value|rate) (of|for) [the] {symbol} [stock|share|shares]|how much (does|do) (one|a|the) {symbol} (share|stock) cost|how much (is|are) {symbol} (shares|stock) [worth]|where (does|is) {symbol} (stand|trading|now)|[at] what price does {symbol} trade|how much do I pay for {symbol} [shares|stock]|is {symbol} (up|down|rising|falling) [today]|I (have|own|want to buy) {symbol} (shares|stock)[,|.] what (is|are) (it|they) worth
translate|translate_text|translator|translation ; Translate a text|Translates into another language ; text language ; ; translate {text} (to|into) {language}|(what is|what's) {text} in {language}|how do (you|I) say {text} in {language}|@please (put|turn|translate) {text} into {language}|{text} in {language}[, please]|@ask the {language} (for|translation of|word for) {text}|@please translate (the sentence|the words|the word|the phrase|the text|this:|this text:|this sentence:|) {text} (into|to) {language}|how (does|would|do|can|could) (one|you|we|people|I) (say|write|express) {text} in {language}|what (does|would) {text} (mean|be|read|sound like) in {language}|I (want|need|have) to say {text} in {language}|{language} for {text}|{language}: {text}|(into|in|to) {language}[,] [please|]: {text}|say {text} in {language}|the (word|words|phrase|sentence) {text} in {language}[, please|]|translate (into|to) {language}: {text}|what is the {language} (word|phrase) for {text}
play_music|play|play_song|music|start_song ; Play a song|Plays music ; song artist ; artist ; play {song} by {artist}|@please play {song}|(put on|start|I want to hear|let me hear) {song} [by {artist}]|play the song {song} [by|from] {artist}|play {song} (from|of) {artist}|I would like to (hear|listen to) {song}|I (feel like|am in the mood for) (listening to|) {song} (by|from) {artist}|@please (play|put on|start) [me] [the] [song|track|] {song} (by|from|of) {artist}|(music|song)[:] {song} by {artist}|how about {song} by {artist}|the song {song} by {artist}, please|I want (to listen to|) {song} by {artist}|let (us|me) (hear|listen to) {song} (by|from) {artist}|{artist} with {song}|something by {artist}: {song}|@please (play|put on) {song}|turn on {song}
read_file|open_file|cat|load_file|get_file|show_file ; Read a file|Contents of a file ; file ; ; (read|open|show|print|load|display) [me] [the file] {file}|what is in [the file] {file}|@ask the (contents|content|text) of {file}|@please (read|open|show me) {file}|let me see {file}|cat {file}|what does {file} (say|contain)|@please (open|show|read|print|display) [me] {file} [and (tell me what it says|read it|print it|show me the text)]|I (want|need|would like) to (see|read|look into|look at) [the file] {file}|@please (show|print|tell) me what (is in|stands in|is written in) {file}|(look|have a look) (into|in|at) {file}|what (stands|is written) in {file}|{file}: what is in it|@please (print|output|show|give me) the (content|contents|text|lines) of {file}|read {file} (aloud|out|to me)|let me (look at|read) {file}
write_file|save_file|save|create_file|store_text ; Write text to a file|Save a file ; file text ; ; (write|save|put|store) {text} (to|into|in) [the file] {file}|(create|make) [a file|the file] {file} (with|containing) [the text|the content] {text}|@please (save|write) {text} (as|to) {file}|(write|save) (to|in) {file}: {text}|@please (save|write|put|store|note) {text} (in|into|to) (a|the) file [called|named] {file}|@please (create|make) (a|the) file (called|named) {file} (with|and write) [the text|the words|the content] {text}|(a|new) file {file} (with|containing) {text}|into {file} (write|goes|put): {text}|{file} should (contain|say|have the text) {text}
delete_file|remove_file|delete|rm|erase_file ; Delete a file|Removes a file ; file ; ; (delete|remove|erase) [the file] {file}|@please (delete|remove|get rid of|throw away) {file}|{file} can go, delete it|I do not need {file} (any more|anymore)|@please (delete|remove|erase|drop|wipe|kill) (the file|my file|file) {file} [from the disk|for ever|]|I (want|need) {file} (gone|deleted|removed|to be deleted)|{file} (should|must|has to) (go|be deleted|be removed|disappear)|(clean|clear) up {file}|throw {file} away|(we|I) no longer need {file}[, delete it|, remove it|]|get rid of [the file] {file}
list_files|ls|dir|list_directory|files|show_folder ; List the files of a folder|Contents of a directory ; path ; ; (list|show|print) [me] [all|the|all the] files (in|of|under) {path}|what (is|files are) in {path}|(which|what) files (does|are in|are there in) {path} [have]|ls {path}|@ask the files in {path}|what does the folder {path} contain|(what|which) files (are|are there|lie|do I have|can I find|exist) (in|under|inside|within) [the (folder|directory)] {path}|@please (list|show|print|give me) [all] [the] (files|contents|content) (in|of|inside|under|from) [the (folder|directory)] {path}|what (is|do I have|lies) (inside|in|under) [the (folder|directory)] {path}|I want to (see|know) (what is in|the files in|which files are in) {path}|look (into|inside) the (folder|directory) {path}|@please list [the (folder|directory)] {path}
get_news|news|headlines|latest_news|fetch_news ; Latest news on a topic|Get the news ; topic count ; count ; @ask the [latest|newest] news (about|on) {topic}|(news|headlines) (about|on) {topic}|what is new (about|in|with) {topic}|any news (about|on) {topic}|@ask {count} (headlines|news) (about|on) {topic}|what happened with {topic}|what do the papers say about {topic}|what (is|was|are) the (latest|newest|current|recent) [news] (about|on|in|around|from) {topic}|(are there|is there|do you have) [any] (news|headlines|something new) (about|on|around) {topic}|@please (get|fetch|show|read) [me] [the|some] [latest|newest] (news|headlines) (about|on|for) {topic}|what (do|does) the (news|papers|media|press) (say|write|report) (about|on) {topic}|anything new (about|on) {topic}|(today's|this week's|the latest|recent) (news|headlines) (about|on) {topic}|what is going on with {topic}
book_flight|find_flights|flights|search_flights|flight ; Find flights|Book a flight between two cities ; from to date ; date ; (book|find|search|get|look for) [me] (a flight|flights|a plane) from {from} to {to} [on {date}]|(fly|I want to fly|I need to fly|I must fly) from {from} to {to} on {date}|flights from {from} to {to}|how do I fly from {from} to {to} on {date}|@please book a flight from {from} to {to} (on|for) {date}|(a flight|a plane ticket) to {to} from {from} on {date}|@please (book|find|search|get|look for|buy) [me] (a flight|flights|a plane ticket|tickets) from {from} to {to} (on|for) {date}|I (want|need|have|would like|plan) (a flight|a plane ticket|to fly|to travel by plane) from {from} to {to} [on|for] {date}|(which|what) flights (are there|go|leave|do you have) from {from} to {to} [on {date}]|from {from} to {to} by plane [on {date}]|on {date} I (fly|must fly|want to fly) from {from} to {to}|is there a (flight|plane) from {from} to {to} [on {date}]|flight {from} to {to}[,| on] {date}
get_route|route|directions|navigate|find_route|distance ; Way between two places|Route from one place to another ; from to ; ; how do I get from {from} to {to}|(route|directions|the way|way) from {from} to {to}|@ask the (way|route|distance) from {from} to {to}|how far is it from {from} to {to}|(navigate|drive|walk|go) from {from} to {to}|how far is {to} from {from}|(what|which) is the (best|shortest|fastest|quickest|) (way|route|road) (from {from} to {to}|between {from} and {to})|@please (show|tell|give) [me] the (way|route|directions|road) from {from} to {to}|how do (we|I|you|people) (drive|walk|go|travel|get) from {from} to {to}|I (am in|start in|am at) {from} and (want|need|have) to (go|get) to {to}|(which|what) road (leads|goes|takes me) from {from} to {to}|from {from} to {to}, how do I (go|drive|get there)|I (want|need) to (get|go|drive) from {from} to {to}|@please (find|plan|calculate) (a|the) (route|way) from {from} to {to}
book_hotel|find_hotel|hotels|hotel|reserve_hotel ; Find a hotel|Book a hotel in a city ; city date ; date ; (book|find|reserve|get) [me] (a hotel|a room|a hotel room|hotels) in {city} [(on|for) {date}]|I need a (hotel|room|bed) in {city} (on|for) {date}|hotels in {city}|where can I (sleep|stay) in {city}|@please reserve a room in {city} for {date}|@please (book|find|reserve|get|look for) [me|us] (a|some|one) (hotel|room|hotel room|bed|place to stay) in {city} (on|for) {date}|(we|I) (want|need|would like|are looking for) (a hotel|a room|a bed|to stay|to sleep) in {city} [(on|for) {date}]|(on|for) {date} I need a (hotel|room) in {city}|(are there|do you have) (hotels|rooms|free rooms) in {city} [(on|for) {date}]|a (hotel|room) in {city} for {date}|where (do|could|should) (we|I) (sleep|stay|spend the night) in {city} [on {date}]
call|phone|dial|make_call|phone_call ; Call a phone number|Dials a number ; phone ; ; (call|dial|ring|phone) {phone}|@please (call|dial|ring) [the number] {phone}|(make|start) a [phone] call to {phone}|give {phone} a call|I (want|need|have|would like|wish) to (phone|ring|speak to|dial|reach|talk to) {phone}|@please (phone|ring up|call up|dial|call|connect me to|reach) [the number|] {phone}|connect me (to|with) {phone}|(phone|telephone) number {phone}[, call it|, dial it]|get {phone} on the (phone|line)|start a call (with|to) {phone}|ring {phone} up
get_order|order_status|track_order|track|where_is_order|track_package ; Status of an order|Track a parcel ; code ; ; where is [my] (order|parcel|package) {code}|(track|check|find|trace) [my|the|] (order|parcel|package) {code}|@ask the (status|state) of [order|parcel|my order] {code}|what is with order {code}|did {code} arrive|(status|state) of [order|package] {code}|@please (check|see|look|find out|tell me) where [my|the] (order|parcel|package|delivery) {code} is [now]|@ask (where|when) {code} (is|arrives)|(has|did|was) [my|the] (order|parcel|package|delivery) {code} (arrived|been sent|shipped|delivered|come|arrive) [yet]|what (happened to|about|is with|is the status of|is the state of) [my|the] (order|parcel|package) {code}|when (will|does) [my|the] (order|parcel|package) {code} (come|arrive|get here)|I am waiting for [my] (order|parcel|package) {code}|@please (track|follow|trace|look up) [the|my] (order|parcel|package|delivery) [number] {code}|my (order|parcel|package) [number] (is|has the number) {code}, where is it
add_to_cart|order|buy|cart|order_item|shop ; Order something|Put a product in the cart ; product count ; count ; (order|buy|get) {count} {product}|@please (order|buy|get) [me|us] {count} {product}|(add|put) {count} {product} (to|in|into) (the|my) (cart|basket)|I (want|need|would like) [to buy|to order] {count} {product}|(order|buy) [me] (a|some) {product}|@please (put|add|place) {count} {product} (in|into|to) (my|the|our) (cart|basket|shopping cart)|{count} {product}[, please|]|(we|I) (need|want) {count} {product}[,|.] (order|buy) (them|it)|let us (buy|order|get) {count} {product}|can I (have|get|buy|order) {count} {product}
add_todo|todo|add_task|new_task|create_task|task ; Add a task|Put something on the list ; title date ; date ; add {title} to (my|the) (list|tasks|todo list|to-do list)|(put|write) {title} on (my|the) (list|todo list)|new task: {title}|(create|make|add) a task (called|named|:|to) {title} [due {date}]|@please note [the task] {title}|I must {title}, put it on the list|task {title} for {date}|@please (add|put|write|note) {title} (to|on|onto) (the|my|our) (todo list|to-do list|list|task list|todos)|(the|my) (todo list|list) (needs|should have|gets) {title}|(new|another) (todo|task|entry|item)[:| on my list:] {title}|(I|we) (need|have) to {title}[,|.] (add|put|note) (it|that) [on the list|to the list|to my tasks]|todo: {title}|do not let me forget to {title}, (add|put) it (to|on) (my|the) list|@please make a (note|task|todo) (to|of|:) {title} [for {date}]
get_definition|define|dictionary|word_meaning|explain_word ; Meaning of a word|Look a word up in the dictionary ; word ; ; define {word}|what does [the word] {word} mean|@ask the (meaning|definition) of {word}|(meaning|definition) of {word}|@please (look up|explain) the word {word}|what (is|'s) the (meaning|definition|sense) of [the word|the term|] {word}|@please (define|explain|look up) [me] [the word|the term|] {word} [in the dictionary|]|I (do not know|heard|read|do not understand|never heard) the (word|term) {word}[,|.] (what does it mean|what is it|explain it|look it up)|how (is|would you|do you) (define|defined|explain) {word}|(what|which) meaning (has|does) {word} [have|]|is {word} a word|(dictionary|definition): {word}|what do people mean by {word}|explain [the word|the term|] {word} to me|the word {word}, (what does it mean|please explain it)
fetch_url|open_url|browse|get_page|download|open_page ; Fetch a web page|Opens an address ; url ; ; (open|fetch|get|load|visit|download|browse) {url}|@please (open|go to|visit) [the page] {url}|what is (on|at) {url}|show me {url}|read the page {url}|@please (open|load|fetch|get|show|visit|read) [me] (the|this) (page|site|address|link|website) {url}|(what|which text) (stands|is written|does it say) (on|at) {url}|(go|browse|surf) to {url}|I (want|need) to (see|read|visit|open) {url}|(take|bring) me to {url}|(look|have a look) at {url}|@please (download|summarise|read) {url}|the (page|site) {url}, please
find_restaurant|restaurants|restaurant|find_food|places_to_eat ; Find places to eat|Restaurants in a city ; city species ; species ; (find|show|search) [me] (a restaurant|restaurants|a place to eat|something to eat) in {city}|where can I eat in {city}|(find|show) [me] (a|some) {species} (restaurant|restaurants) in {city}|I want to eat {species} in {city}|restaurants in {city}|@please (find|show|recommend|suggest) [me|us] (a|some|good) (restaurant|restaurants|places to eat|place to eat|place for dinner) in {city}|(where|in which restaurant) (can|could|should) (we|I|one) (eat|have dinner|have lunch|get food|dine) in {city}|(we are|I am) hungry in {city}|(I|we) want to eat in {city}|(any|are there) good restaurants in {city}|where is good food in {city}|where can I get {species} [food] in {city}|@please find {species} food in {city}
get_user|find_user|user_info|lookup_user|get_contact|contact ; Data of a person|Look up a contact ; person ; ; (find|show|look up|get) [me] [the] (user|contact|person|data of|contact of) {person}|who is {person}|@ask the (data|details|record|contact|number|address) of {person}|@please look up {person}|information (on|about) {person}|@please (find|show|look up|get|give me) the (contact|user|record|data|profile|details) (of|for|named|called|on) {person}|(do|can) you (know|find) {person}|what (do|data do) we (know|have) (about|on) {person}|(find|get|show) {person} in (my|the) contacts|how (can|do) I reach {person}|I need the (contact|data|number|record|profile) (of|for) {person}|open the (profile|record) of {person}
count_words|word_count|count_letters|text_length|reverse_text|uppercase ; Works on a text|A function of a text ; text ; ; @please (call|run|use|apply) {fn} (on|with|for) {text}|(run|use) {fn} (on|for) {text}|{fn} (for|on|of) {text}
"""
NO_ARGUMENTS = [
    ("list_nodes|get_nodes|nodes", "List the nodes|All nodes of the mesh", "(list|show) [me] (the|all) nodes|which nodes are there|@ask the nodes"),
    ("get_status|status|system_status|health_check", "Current status|State of the system", "@ask the [current|system] status|how is the system|(check|show) the status|status report"),
    ("get_location|where_am_i|location", "Location of the user|Where the user is", "where am I|@ask my (location|position)|find my (location|position)"),
    ("stop_music|pause_music|stop", "Stop the music|Stop playing", "(stop|pause) the (music|song)|@please (stop|pause) the music|music off|be quiet"),
    ("take_photo|photo|camera", "Take a picture|Use the camera", "take a (photo|picture)|@please take a picture|make a photo"),
    ("get_date|today|current_date", "The date of today|Current date", "what (day|date) is it [today]|@ask (the date|today's date)|which day is today"),
    ("flip_coin|coin|toss_coin", "Flip a coin|Heads or tails", "(flip|toss|throw) a coin|heads or tails|@please flip a coin"),
    ("lock_door|lock|lock_house", "Lock the door|Locks the house", "lock the (door|house)|@please lock the (door|house)|close and lock the door"),
    ("get_battery|battery|battery_level", "Charge of the battery|Battery level", "@ask the battery [level|charge]|how full is the battery|battery level"),
    ("list_tasks|get_todos|tasks", "All open tasks|The list of tasks", "(show|list) [me] my (tasks|list|todos)|what is on my list|what do I have to do|@ask my tasks"),
]
VERBS = "polish start stop check build clean paint open close reset move copy send fetch update create delete book rent scan print pack sort merge split mark lock unlock boost rotate mix grind wash water feed train test measure record archive publish sign approve reject refund assign invite rename export import attach install deploy restart inspect repair charge calibrate launch list count draw cut fold plant".split()
NOUNS = "lantern report robot garden door camera invoice ticket account device project server backup song picture letter parcel plant fish tank boat drone engine pump valve sensor table folder note page order user group channel badge token bottle recipe printer window curtain oven washer mower bike car train map chart form contract budget job queue shelf crate box coffee tea pizza tree field fence gate bridge".split()
PARAMETERS = [  # parameter of invented tools: (name, type, generator)
    ("name", "string", v.full_name), ("size", "integer", v.small_integer), ("colour", "string", P["colour"][3]), ("color", "string", P["colour"][3]),
    ("speed", "integer", v.small_integer), ("mode", "string", v.any_word), ("count", "integer", v.small_integer), ("target", "string", v.any_word),
    ("label", "string", phrases.title), ("weight", "number", v.number), ("city", "string", v.city), ("date", "string", v.date),
    ("time", "string", v.clock), ("owner", "string", v.person), ("id", "string", v.code), ("file", "string", v.filename), ("width", "integer", v.integer),
    ("height", "integer", v.integer), ("level", "integer", v.small_integer), ("price", "number", v.number), ("title", "string", phrases.task),
    ("note", "string", phrases.message), ("priority", "integer", v.small_integer), ("amount", "number", v.number), ("email", "string", v.email),
    ("kind", "string", v.any_word), ("duration", "integer", v.small_integer), ("angle", "integer", v.integer), ("material", "string", v.any_word), ("flavour", "string", v.any_word),
]
INVENTED_ASKS = ["@please {verb} (the|a|my) {noun} {args}", "{verb} (the|a|one|this) {noun} {args}", "I (want|need|would like) to {verb} (the|a) {noun} {args}", "{verb} {noun}[:|,] {args}", "@please (call|use|run) {fn} {args}", "(call|use|run) [the tool|the function] {fn} {args}", "(it is time to|let us|we should|you should) {verb} the {noun} {args}"]


UNSAID = [  # optional parameters that nobody mentions, so that they stay away from the call
    ("unit", {"type": "string", "enum": ["celsius", "fahrenheit"]}), ("format", {"type": "string", "enum": ["short", "long"]}), ("verbose", {"type": "boolean"}),
    ("limit", {"type": "integer", "description": "Most results"}), ("locale", {"type": "string", "description": "Language of the answer"}), ("silent", {"type": "boolean"}),
    ("account", {"type": "string", "description": "Account to use"}), ("timeout", {"type": "number"}),
]


@dataclass
class Call:
    """A question and the one right call for it."""

    question: str
    name: str
    arguments: dict
    shape: str = ""  # the question with `{}` for each value


def spoken(value, rng):
    """How a person writes `value` in a question."""
    text = json.dumps(value) if not isinstance(value, str) else value
    if isinstance(value, str) and rng.random() < 0.12:
        return rng.choice(["\"{}\"", "'{}'"]).format(text)
    return text


def expand(pattern):
    return pattern.replace("@please ", PLEASE).replace("@ask", ASKING)


def parameter(kind, description, rng, choices=None):
    """JSON schema of one parameter, its keys in a usual order."""
    out = {"type": kind}
    if choices:
        out["enum"] = choices
    if description and rng.random() < 0.65:
        out["description"] = description
    return out


def schema(name, description, properties, required, rng):
    """A tool as OpenAI clients send it; order and optional keys vary as between clients."""
    body = {"type": "object", "properties": properties}
    if required or rng.random() < 0.3:
        body["required"] = required
    if rng.random() < 0.12:
        body["additionalProperties"] = False
    function = {"name": name}
    if rng.random() < 0.92:
        function["description"] = description + rng.choice(["", "", "."])
    if properties or rng.random() < 0.8:
        function["parameters"] = body
    if rng.random() < 0.05:
        function["strict"] = True
    if rng.random() < 0.08:
        function = {k: function[k] for k in ("description", "name", "parameters") if k in function}
    return {"type": "function", "function": function}


def split_ways(text):
    """Split ways to ask at the `|` outside of brackets."""
    return [expand(p.strip()) for p in alternatives(text)]


class Kind:
    """A family of tools that do the same."""

    def __init__(self, line):
        names, descriptions, slots, optional, asks = [p.strip() for p in line.split(" ;", 4)]
        self.names, self.descriptions = names.split("|"), descriptions.split("|")
        self.slots, self.optional = slots.split(), optional.split()
        self.asks = split_ways(asks.lstrip("; "))

    def usable(self, slots):
        """The ways to ask that mention no parameter outside `slots`."""
        return [a for a in self.asks if all("{" + s + "}" not in a for s in self.slots if s not in slots)]

    def make(self, rng):
        """A concrete tool and a function that draws a call of it."""
        slots = [s for s in self.slots if s not in self.optional or rng.random() < 0.6]
        if not self.usable(slots):
            slots = self.slots
        name, taken = rng.choice(self.names), {}
        properties = {}
        for slot in slots:
            names, kinds, descriptions, _ = P[slot]
            free = [n for n in names.split("|") if n not in taken.values()]
            taken[slot] = free[0] if rng.random() < 0.6 - 0.2 * v.oddity else rng.choice(free)
            if v.odd(rng, 0.06):
                taken[slot] = rng.choice([v.made_up_word(rng), "the_" + taken[slot], taken[slot] + "_" + rng.choice(["name", "value", "text", "in"])])
            choices = None
            if slot == "state" and rng.random() < 0.7:
                choices = ["on", "off"]
            properties[taken[slot]] = parameter(rng.choice(kinds.split("|")), rng.choice(descriptions.split("|")), rng, choices)
        required = [taken[s] for s in slots if s not in self.optional]
        if rng.random() < 0.1:
            key, extra = rng.choice(UNSAID)
            if key not in properties:
                properties[key] = dict(extra)
        if v.odd(rng, 0.12):
            name = rng.choice(["tool_", "my_", "api_", "do_", "svc_", v.made_up_word(rng) + "_"]) + name
        elif v.odd(rng, 0.1):
            parts = name.split("_")
            name = parts[0] + "".join(p.capitalize() for p in parts[1:])
        usable = self.usable(slots)
        kinds = {s: properties[taken[s]]["type"] for s in slots}

        def draw():
            drawn, pattern = {}, rng.choice(usable)
            for slot in slots:
                value = P[slot][3](rng)
                drawn[slot] = int(value) if kinds[slot] == "integer" else value
            text = say(pattern, rng)
            if rng.random() < 0.3:
                text = loosened(text, rng, 0.25)
            if rng.random() < 0.08:
                text = thinned(text, rng)
            text = text.replace("{fn}", name)
            shown = {s: spoken(x, rng) for s, x in drawn.items()}
            used = [s for s in slots if "{" + s + "}" in text]
            shape = re.sub(r"\{\w+\}", "{}", text)
            for slot in used:
                text = text.replace("{" + slot + "}", shown[slot])
            return Call(text, name, {taken[s]: drawn[s] for s in used}, shape)

        return schema(name, rng.choice(self.descriptions), properties, required, rng), draw


class Invented:
    """Tools that nobody has seen: a random verb, noun and parameters."""

    def make(self, rng):
        verb = rng.choice(VERBS) if rng.random() < 0.7 else v.made_up_word(rng)
        noun = rng.choice(NOUNS) if rng.random() < 0.6 else v.any_word(rng)
        name = rng.choice([f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", verb + noun.capitalize(), f"{v.made_up_word(rng)}_{v.made_up_word(rng)}", v.made_up_word(rng)])
        picked, seen = [], set()
        for p in rng.sample(PARAMETERS, rng.choice([0, 1, 1, 2, 2, 3, 4])):
            key = v.made_up_word(rng) if v.odd(rng, 0.25) else p[0]
            if key not in seen:
                seen.add(key)
                picked.append((key, p[1], p[2]))
        properties = {k: parameter(kind, rng.choice([f"The {k}", f"{k.capitalize()} of the {noun}", k]), rng) for k, kind, _ in picked}
        needed = [k for k, _, _ in picked if rng.random() < 0.75]
        description = rng.choice([f"{verb.capitalize()} a {noun}", f"{verb.capitalize()} the {noun}", f"Tool to {verb} a {noun}", f"Use it to {verb} the {noun}"])

        def draw():
            used = [p for p in picked if p[0] in needed or rng.random() < 0.5]
            drawn = {k: g(rng) for k, _, g in used}
            frame = rng.choice(["{k} {v}", "{k}: {v}", "{k} = {v}", "{k} of {v}", "the {k} {v}", "{k} set to {v}", "{v} as {k}", "{k} is {v}", "{k}={v}", "{v} as the {k}", "a {k} of {v}", "{v} {k}", "{v} {k}", "its {k} is {v}"])
            order = list(drawn)
            rng.shuffle(order)
            parts = [frame.replace("{k}", k).replace("{v}", spoken(drawn[k], rng)) for k in order]
            joined = rng.choice([", ", " and "]).join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + rng.choice([", ", " and ", ", and "]) + parts[-1]
            lead = rng.choice(["with ", "with ", "", "using ", "where ", "- ", "and ", "please use ", "at ", "to "]) if parts else ""
            text = say(expand(rng.choice(INVENTED_ASKS)), rng, verb=verb, noun=noun, fn=name)
            text = text.replace("{args}", lead + joined).strip()
            return Call(text, name, drawn)

        return schema(name, description, properties, needed, rng), draw


class Plain:
    """Tools without parameters."""

    def __init__(self, row):
        self.names, self.descriptions = row[0].split("|"), row[1].split("|")
        self.asks = split_ways(row[2])

    def make(self, rng):
        name = rng.choice(self.names)
        tool = schema(name, rng.choice(self.descriptions), {}, [], rng)
        return tool, lambda: Call(say(rng.choice(self.asks), rng), name, {})


KINDS = [Kind(line) for line in RAW.strip().splitlines()]
PLAINS = [Plain(row) for row in NO_ARGUMENTS]
INVENTED = Invented()


NEAR = [  # families that are easy to mix up
    "get_weather get_time get_news book_hotel find_restaurant", "add multiply subtract divide square_root random_number", "search get_news get_definition fetch_url translate get_user",
    "read_file write_file delete_file list_files fetch_url", "send_mail send_message call get_user", "convert convert_currency get_stock_price multiply", "set_timer set_alarm set_reminder wait create_event add_todo",
    "set_light set_brightness set_color set_temperature", "book_flight get_route book_hotel get_weather", "get_order add_to_cart get_stock_price add_todo", "play_music search translate send_message", "roll_dice random_number add set_timer",
]
BY_NAME = {kind.names[0]: kind for kind in KINDS}
GROUPS = [[BY_NAME[n] for n in group.split()] for group in NEAR]


def random_kind(rng):
    dice = rng.random()
    if dice < 0.56:
        return rng.choice(KINDS)
    return INVENTED if dice < 0.56 + 0.34 * v.oddity else rng.choice(KINDS if v.oddity < 1 and rng.random() < 0.7 else PLAINS)
