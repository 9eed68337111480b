/* What closes a doubt besides a poll, a delivery and a key: the quiet audit, and a person. */

inline prove_free() {
	for (i : 0 .. JOBS - 1) {
		if
		:: DOUBT(i) && proofs[i] < PROOFS ->
			proofs[i]++;
			close(i, SLOT(i), released, 0, 0);
			MOVE(i, in_doubt, queued, proved_free)
		:: else -> skip
		fi
	}
	i = 0
}

inline prove_charged() {
	for (i : 0 .. JOBS - 1) {
		if
		:: DOUBT(i) ->
			misbooked = misbooked || remote[SLOT(i)] != has_match;
			close(i, SLOT(i), audited, PRICE, PRICE);
			MOVE(i, in_doubt, lost, audit_charged)
		:: else -> skip
		fi
	}
	i = 0
}

inline idle() {
	look = 0;
	seen = 0;
	seen_first = 0;
	moved = false;
	for (i : 0 .. SLOTS - 1) {
		owed[i] = false
	}
	i = 0;
	owing = 0
}

#ifdef FREEZE
#define FROZEN (adrift == 0)
#else
#define FROZEN true
#endif
#ifdef SETTLE
#define SETTLED (owing == 0)
#else
#define SETTLED true
#endif
#ifdef SAME_BOOKS
#define STEADY (!moved)
#else
#define STEADY true
#endif
#define FITS (STEADY && SUM(DOUBT) == 1 && unsure == 0 && seen > booked && seen - booked < CEILING)

/* ledger/quiet.py: a reading, and if money is missing a second one. Nothing is claimed meanwhile. */
proctype auditor() {
	byte i;
	do
	:: d_step { look == 0 && EVERY(QUIET) && SUM(DOUBT) > 0 && FROZEN -> look = 1; seen = taken }
	:: d_step { look == 1 && EVERY(QUIET) ->
		if
		:: seen == booked -> prove_free(); idle()
		:: seen > booked ->
			look = 2;
			seen_first = seen;
			for (i : 0 .. SLOTS - 1) {
				owed[i] = due[i];
				owing = owing + due[i]
			}
			i = 0
		:: else -> idle()
		fi }
	:: d_step { look == 2 && EVERY(QUIET) && SETTLED -> look = 3; seen = taken }
	:: d_step { look == 3 && EVERY(QUIET) ->
		if
		:: seen == booked -> prove_free()
		:: seen != booked && seen == seen_first && FITS -> prove_charged()
		:: seen > booked && !(seen == seen_first && FITS) -> REMEMBER_AUDIT
		:: else -> skip
		fi;
		idle() }
	:: d_step { look > 0 && !EVERY(QUIET) -> idle() }
	od
}

/* Written off: the whole hold counts as spent, but nobody knows. */
inline give_up(j) {
	close(j, SLOT(j), assumed, CEILING, 0);
	unsure++
}

/* Written off after an audit: the group's holds are released, what is missing is booked once. */
inline give_up_group() {
	exposure = exposure + noted;
	booked = booked + noted;
	for (i : 0 .. JOBS - 1) {
		if
		:: DOUBT(i) -> close(i, SLOT(i), written_off, 0, 0); MOVE(i, in_doubt, lost, written_off)
		:: else -> skip
		fi
	}
	i = 0
}

/* `leadledger resolve` of one job. */
proctype person(byte j) {
	byte i;
	do
	:: atomic { DOUBT(j) ->
		if
#ifdef UNATTRIBUTED
		:: noted > 0 -> give_up_group()
		:: noted == 0 || SUM(DOUBT) > 1 -> give_up(j); MOVE(j, in_doubt, lost, written_off)
		:: (noted == 0 || SUM(DOUBT) > 1) && tries[j] < ATTEMPTS ->
#else
		:: give_up(j); MOVE(j, in_doubt, lost, written_off)
		:: tries[j] < ATTEMPTS ->
#endif
			give_up(j);
			MOVE(j, in_doubt, lost, resent_by_person);
			generation[j]++;
			state[j] = queued /* a new row of the next generation */
		:: remote[SLOT(j)] != unknown && !known[j] ->
			known[j] = true;
			MOVE(j, in_doubt, waiting, accepted_by_person)
		fi }
	od
}
