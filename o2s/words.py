"""Words of questions and answers about rooms that both the data and the model go by."""

SIDES = ("in front", "left", "behind", "right")  # of a viewer: quarter turns, counter-clockwise
NUMBERS = (  # from one on, as answers say how many there are
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
