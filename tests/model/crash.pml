/* A kill at any moment, and the start after it. */
proctype crasher() {
	byte i;
	byte j;
	do
	:: atomic { crashes < CRASHES ->
		crashes++;
		idle();
		for (j : 0 .. JOBS - 1) {
			room[j] = false;
			if
			:: air[j] == flying -> desert(j, SLOT(j))
			:: else -> skip
			fi;
			air[j] = none;
			if
			:: state[j] == submitting ->
#ifdef DURABLE_INTENT
				MOVE(j, submitting, in_doubt, found_at_start)
#else
				close(j, SLOT(j), unwritten, 0, 0);
				unrecorded = unrecorded || TAKES(SLOT(j));
				CHEAT(j, submitting, queued)
#endif
			:: else -> skip
			fi
		}
		j = 0 }
	:: true -> skip /* fairness must not force a crash; and Spin sees no cycle where nobody can move */
	od
}
