/* A copy of the POST of attempt s reaches the provider. */
inline land(j, s) {
	if
	:: remote[s] == unknown ->
		remote[s] = running;
		unrecorded = unrecorded || (book[s] != held && !CLAIM(s));
		misbooked = misbooked || book[s] == audited;
		for (i : j * ATTEMPTS .. j * ATTEMPTS + ATTEMPTS - 1) {
			twice = twice || (i != s && TAKES(i) && made_for[i] == made_for[s])
		}
		i = 0;
#ifdef PRECHARGE
		taken = taken + CEILING
#endif
	:: else -> skip /* the key is known: the first job answers */
	fi
}

/* The client is gone while its POST flies. */
inline desert(j, s) {
#ifdef LATE
	stale[s]++;
	adrift++
#else
	if
	:: true -> land(j, s)
	:: skip
	fi
#endif
}

/* A claim is answered after all; its charge is corrected by an adjust. */
inline answer_claim(j, s) {
	if
	:: book[s] == audited -> exposure = exposure - PRICE; booked = booked - PRICE
	:: book[s] == assumed -> exposure = exposure - CEILING; unsure--
	:: else -> skip
	fi;
	exposure = exposure + COST(s);
	booked = booked + COST(s);
	book[s] = charged;
	FORGET_AUDIT;
	moved = look > 0;
	if
	:: CURRENT(j, s) && state[j] == lost && remote[s] == has_match -> MOVE(j, lost, matched, late_answer)
	:: CURRENT(j, s) && state[j] == lost && remote[s] == has_none -> MOVE(j, lost, no_match, late_answer)
	:: else -> skip /* an older generation: its row is lost, and now has an answer */
	fi
}

/* The network on the way to, and the provider behind, one attempt. */
proctype provider(byte j; byte s) {
	byte i;
	do
	:: atomic { CURRENT(j, s) && air[j] == flying ->
		if
		:: air[j] = answered; land(j, s)
#ifndef LATE
		:: air[j] = cut; land(j, s)
		:: air[j] = cut
#endif
#ifdef REFUSED_AGAIN
		:: air[j] = rejected
#else
		:: remote[s] == unknown && stale[s] == 0 -> air[j] = rejected
#endif
		fi }
	:: d_step { stale[s] > 0 -> stale[s]--; adrift--; land(j, s) }
	:: d_step { stale[s] > 0 -> stale[s]--; adrift-- }
	:: atomic { remote[s] == running ->
		if
		:: remote[s] = has_match
		:: remote[s] = has_none
		fi;
#ifdef WEBHOOK
		delivery[s] = true;
#endif
#ifdef PRECHARGE
		due[s] = true }
#else
		taken = taken + COST(s) }
#endif
	:: d_step { due[s] ->
		due[s] = false;
		taken = taken - CEILING + COST(s);
		owing = owing - owed[s];
		owed[s] = false }
	:: d_step { CURRENT(j, s) && known[j] && ENDED(s) && !forgotten[j] -> forgotten[j] = true }

	:: d_step { delivery[s] -> delivery[s] = false } /* lost on its way */
	:: d_step { delivery[s] && !(CURRENT(j, s) && state[j] == submitting) ->
		delivery[s] = false;
		if
		:: CURRENT(j, s) && state[j] == waiting -> ANSWER(j, s, waiting, delivery_evidence)
		:: CURRENT(j, s) && DOUBT(j) -> ANSWER(j, s, in_doubt, delivery_evidence)
		:: CLAIM(s) -> answer_claim(j, s)
		:: else -> skip /* kept among the answers */
		fi }
	od
}
