/* The runner and the poller, as far as they deal with one job. */
proctype client(byte j) {
	byte i;
	do
#ifdef LOOSE_CAP
	:: d_step { state[j] == queued && look == 0 && !room[j] && exposure + CEILING <= CAP -> room[j] = true }
	:: d_step { state[j] == queued && look == 0 && tries[j] < ATTEMPTS && room[j] ->
		room[j] = false;
#else
	:: d_step { state[j] == queued && look == 0 && tries[j] < ATTEMPTS && exposure + CEILING <= CAP ->
#endif
		tries[j]++;
		made_for[SLOT(j)] = generation[j];
		book[SLOT(j)] = held;
		exposure = exposure + CEILING;
		overdrawn = overdrawn || exposure > CAP;
		FORGET_AUDIT;
		MOVE(j, queued, submitting, claimed);
		air[j] = flying }
	:: d_step { air[j] == answered ->
		air[j] = none;
		known[j] = true;
		MOVE(j, submitting, waiting, accepted) }
	:: atomic { air[j] == rejected ->
		air[j] = none;
		close(j, SLOT(j), released, 0, 0);
		if
		:: MOVE(j, submitting, failed, refused)
		:: MOVE(j, submitting, queued, throttled)
		fi }
#ifdef LATE
	:: d_step { air[j] == flying -> /* the deadline */
		air[j] = none;
		stale[SLOT(j)]++;
		adrift++;
		MOVE(j, submitting, in_doubt, outcome_unknown) }
#else
	:: d_step { air[j] == cut ->
		air[j] = none;
		MOVE(j, submitting, in_doubt, outcome_unknown) }
#endif

	:: d_step { state[j] == waiting && ENDED(SLOT(j)) && !forgotten[j] ->
		ANSWER(j, SLOT(j), waiting, completed) }
	:: d_step { state[j] == waiting && (forgotten[j] || !flapped[j]) ->
		flapped[j] = true;
		MOVE(j, waiting, in_doubt, unreachable) }
	:: d_step { DOUBT(j) && known[j] && !forgotten[j] ->
		if
		:: ENDED(SLOT(j)) -> ANSWER(j, SLOT(j), in_doubt, poll_evidence)
		:: else -> MOVE(j, in_doubt, waiting, poll_evidence)
		fi }

#ifdef KEY
	:: d_step { DOUBT(j) && !known[j] && look == 0 && !again[j] ->
		again[j] = true;
		MOVE(j, in_doubt, submitting, same_key_resend);
		air[j] = flying }
#elif POLICY == BLIND
	:: d_step { DOUBT(j) ->
		close(j, SLOT(j), released, 0, 0);
		CHEAT(j, in_doubt, queued) }
#elif POLICY == LOOK
	:: d_step { DOUBT(j) && !known[j] && remote[SLOT(j)] != unknown ->
		known[j] = true;
		MOVE(j, in_doubt, waiting, poll_evidence) }
	:: d_step { DOUBT(j) && remote[SLOT(j)] == unknown ->
		close(j, SLOT(j), released, 0, 0);
		CHEAT(j, in_doubt, queued) }
#endif
	od
}
