insert into node_beats (number, beat, leaving) select number, beat, leaving from node_sessions
