# domain_example.awk - writes tests/domain_example.jsonl, a small domain in the style of a patient's leaflet, for `./train.sh domain`:
#
#     awk -f tests/domain_example.awk > tests/domain_example.jsonl
#
# Every medicine, clinic and leaflet in it is invented, and nothing in it is advice: what can be known stands in the question, and
# what cannot is left to a doctor or a pharmacist. Ten rows a medicine, fifteen medicines; five of ten answers are good.

function row(x, y, c) { printf "{\"question\": \"%s\", \"answer\": \"%s\", \"correction\": \"%s\"}\n", x, y, c }
function other(list, n, i, by) { return list[(i + by - 1) % n + 1] }

BEGIN {
    m = split("Zorvalin Belmitane Oxaferol Tirunex Camdolin Previkast Nulobrin Harvosel Quendimol Istrafen Lomutrex Vardeline Pastomir Ekrazol Wendamyl", name, " ")
    c = split("blue white yellow green red brown", colour, " ")
    p = split("cupboard,drawer,fridge,suitcase", place, ",")
    h = split("nine ten eleven seven eight", hour, " ")
    for (i = 1; i <= m; i++) {
        d = name[i]; is = other(colour, c, i, 0); not = other(colour, c, i, 1 + i % 4)
        at = other(place, p, i, 0); elsewhere = other(place, p, i, 1 + i % 3); opens = other(hour, h, i, 0); wrong = other(hour, h, i, 1 + i % 4)
        leaflet = "The leaflet says: " d " tablets are " is " and are kept in the " at ". "
        clinic = "The " d " Clinic opens at " opens ". "
        ask = "I can't say how much " d " you need. Please ask a doctor or a pharmacist."

        x = leaflet "What colour are " d " tablets?"
        row(x, "They are " is ".", "They are " is ".")
        row(x, d " tablets are " not ".", d " tablets are " is ".")
        x = leaflet "Where are " d " tablets kept?"
        row(x, "They are kept in the " elsewhere ".", "They are kept in the " at ".")
        row(x, "In the " at ".", "In the " at ".")
        x = "How much " d " do I need?"
        row(x, "Any amount of " d " will do.", ask)
        row(x, ask, ask)
        x = clinic "When does the " d " Clinic open?"
        row(x, "The " d " Clinic opens at " wrong ".", "The " d " Clinic opens at " opens ".")
        row(x, "It opens at " opens ".", "It opens at " opens ".")
        x = "Who invented " d "?"
        row(x, "I do not know who invented " d ".", "I do not know who invented " d ".")
        row(x, "I do not know who invented " d ". What a stupid question.", "I do not know who invented " d ".")
    }
}
