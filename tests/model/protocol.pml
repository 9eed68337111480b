/*
 * The paid call of leadledger: crashes, doubt, and everything that may close a doubt.
 *
 * A client whose memory is lost in a crash, its ledger, a network that loses and delays, a provider with books
 * of its own, the quiet balance audit, a person. Every wait is a guard: the model knows order, not time.
 * Money: a ceiling is 2, a match costs 1, no match costs 0.
 *
 * Switches (-D):
 *   DURABLE_INTENT  intent and hold are on disk before the POST leaves
 *   LATE            a POST may still land after the client gave up or died
 *   FREEZE          the audit waits until no POST can land any more
 *   SETTLE          between the audit's two readings every refund due arrives
 *   PRECHARGE       the provider takes the whole ceiling when it accepts (without: the price, at the end)
 *   KEY             the provider honours keys, and a doubt is re-sent with its key
 *   DERIVED_KEY     the key is made from the request (without: random, stored with the intent)
 *   REFUSED_AGAIN   a re-sent POST may be refused although the first one was taken, or will be
 *   POLICY          BLIND: send again at once; LOOK: send again when the provider knows nothing now;
 *                   HOLD: until there is evidence
 *   AUDIT OPERATOR WEBHOOK   who brings evidence
 *   UNATTRIBUTED    a person may write off the whole group after an audit: its gap is booked, not assumed
 *   SAME_BOOKS      a charge is believed only if nothing was booked since the first reading
 *   LOOSE_CAP       the cap is checked before the transaction that writes the hold
 * Sizes: JOBS (1 or more, at most 3), ATTEMPTS of each, CRASHES; CAMPAIGN sets larger ones.
 * Each process loops over what its actor may do next; Spin tries every order of them.
 */
#define BLIND 0
#define LOOK 1
#define HOLD 2
#ifndef POLICY
#define POLICY HOLD
#endif
#ifdef CAMPAIGN
#define JOBS 2
#define ATTEMPTS 2
#define CRASHES 1
#endif
#ifndef JOBS
#define JOBS 1
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* of one job, all generations together */
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#define PROOFS 1 /* an audit proves a job free so often, then a person looks at it */
#define CEILING 2
#define PRICE 1
#define CAP (2 * CEILING)
#define SLOTS (JOBS * ATTEMPTS)

/* A job, as in ledger/states.py. */
mtype = { queued, submitting, waiting, in_doubt, matched, no_match, failed, lost };
/* What the ledger has booked for an attempt; the last three are claims. */
mtype = { unwritten, held, released, charged, audited, assumed, written_off };
/* The POST that a living client waits for. */
mtype = { none, flying, answered, rejected, cut };
/* The provider's job behind an attempt. */
mtype = { unknown, running, has_match, has_none };

/* The ledger. Survives a crash (without DURABLE_INTENT a claim does not). */
mtype state[JOBS] = queued;
byte tries[JOBS];		/* number of the latest attempt: the fence */
byte generation[JOBS];
byte proofs[JOBS];
mtype book[SLOTS] = unwritten;
byte made_for[SLOTS];	/* the generation of the attempt */
bool known[JOBS];		/* the remote job id of the latest attempt is stored */
byte exposure;			/* holds - releases, and what was booked in their place */
byte booked;			/* how much the balance should be short; assumed charges count as 0 */
byte unsure;			/* assumed charges */
byte noted;				/* the gap of the newest audit, if nothing was booked since */

/* The client's memory. A crash forgets it. */
mtype air[JOBS] = none;
bool room[JOBS];		/* LOOSE_CAP: somebody has looked, and there was room */
byte look;				/* the audit: 0 idle, 1 has a reading, 2 waits for refunds, 3 has a second one */
byte seen;
byte seen_first;
bool moved;				/* something was booked since the first reading */

/* The network and the provider. The client cannot look in here. */
byte stale[SLOTS];		/* copies of a POST whose sender is gone */
byte adrift;			/* their sum */
bool again[JOBS];		/* the latest attempt was sent again with its key */
bool flapped[JOBS];		/* polls of the latest attempt went unanswered for a while */
mtype remote[SLOTS] = unknown;
bool due[SLOTS];		/* its refund is still to come */
bool owed[SLOTS];		/* and was so at the audit's first reading */
byte owing;				/* their number */
bool forgotten[JOBS];	/* its result cannot be polled any more */
bool delivery[SLOTS];	/* a webhook delivery is on its way */
byte taken;				/* how much the balance is short */
byte crashes;

/* What must not happen. Each flag is raised where it happens, and stays. */
bool twice;			/* one request was charged, or pre-charged, twice by us */
bool unrecorded;	/* money was taken, and no open hold, charge or claim in the ledger stands for it */
bool misbooked;		/* an audit booked as charged what was not */
bool overdrawn;		/* exposure above the cap */
bool mistaken;		/* a move from another state than believed: a fault of this model */

#define BUSY(j) (state[j] == submitting || state[j] == waiting)
#define DOUBT(j) (state[j] == in_doubt)
#if JOBS == 1
#define EVERY(x) (x(0))
#define SUM(x) (x(0))
#elif JOBS == 2
#define EVERY(x) (x(0) && x(1))
#define SUM(x) (x(0) + x(1))
#else
#define EVERY(x) (x(0) && x(1) && x(2))
#define SUM(x) (x(0) + x(1) + x(2))
#endif
#define CLOSED(j) (!BUSY(j) && !DOUBT(j))
#define QUIET(j) (!BUSY(j))

ltl once { [] !twice }
ltl recorded { [] !unrecorded }
ltl books { [] !misbooked }
ltl cap { [] !overdrawn }
ltl safety { [] !(twice || unrecorded || misbooked || overdrawn || mistaken) }
ltl ends { [] (DOUBT(0) -> <> !DOUBT(0)) }
ltl settles { <> [] EVERY(CLOSED) }

#if defined(KEY) && defined(DERIVED_KEY)
#define SLOT(j) (j * ATTEMPTS)
#else
#define SLOT(j) (j * ATTEMPTS + tries[j] - 1)
#endif
#define CURRENT(j, s) (tries[j] > 0 && SLOT(j) == s)
#define TAKES(s) (remote[s] == running || remote[s] == has_match)
#define ENDED(s) (remote[s] == has_match || remote[s] == has_none)
#define CLAIM(s) (book[s] == audited || book[s] == assumed || book[s] == written_off)

#ifdef UNATTRIBUTED
#define REMEMBER_AUDIT noted = seen - booked
#define FORGET_AUDIT noted = 0
#else
#define REMEMBER_AUDIT skip
#define FORGET_AUDIT skip
#endif

/* The arguments are those of a Step in ledger/states.py; a test compares. CHEAT is a step it forbids. */
#define MOVE(j, before, after, reason) mistaken = (mistaken || state[j] != before); state[j] = after
#define CHEAT(j, before, after) MOVE(j, before, after, forbidden)

/* What takes the place of an open hold: `spends` of it stays spent, the balance should show `moves`. */
inline close(j, s, entry, spends, moves) {
	unrecorded = unrecorded || (entry == released && TAKES(s));
	book[s] = entry;
	exposure = exposure - CEILING + spends;
	booked = booked + moves;
	FORGET_AUDIT;
	moved = look > 0;
	known[j] = false;
	again[j] = false;
	flapped[j] = false;
	forgotten[j] = false
}

#define COST(s) (remote[s] == has_match -> PRICE : 0)
#define ANSWER(j, s, before, reason) \
	close(j, s, charged, COST(s), COST(s)); \
	if \
	:: remote[s] == has_match -> MOVE(j, before, matched, reason) \
	:: else -> MOVE(j, before, no_match, reason) \
	fi

#include "provider.pml"
#include "client.pml"
#include "evidence.pml"
#include "crash.pml"

init {
	byte j;
	byte s;
	atomic {
		for (j : 0 .. JOBS - 1) {
			run client(j);
#ifdef OPERATOR
			run person(j);
#endif
			for (s : j * ATTEMPTS .. j * ATTEMPTS + ATTEMPTS - 1) {
				run provider(j, s)
			}
		}
		j = 0;
		s = 0;
#ifdef AUDIT
		run auditor();
#endif
		run crasher()
	}
}
