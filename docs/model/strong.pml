/*
 * What:   the strong-consistency protocol of one key (design section 6), as README.md beside this file explains it.
 * Time:   every clock is a countdown; Clock takes one off all of them at once. Who is paused, cut off or dead simply does not move while it ticks.
 * Net:    a message that was sent may be delivered at any later time, again, or never.
 * Checks: ACKED_ONLY: no hit is older than the newest write that was acknowledged when the read began.
 *         otherwise: no hit is older than what the primary held when the read began, which is stronger: the key is linearizable.
 *         LIVE: every write ends.
 *
 *   record at a vote:  2 ──suspend──▶ 3 ──take──▶ 4 ──suspend──▶ 5 …      even: lease may be renewed; odd: suspended; 0: lost
 *   region:            NORMAL ──sees a higher record──▶ TAKING ──majority──▶ WAITING ──lock window──▶ rule * ──▶ NORMAL
 *   write:             IDLE ──▶ PREPARING ──all acknowledged or suspended──▶ SENT ──▶ OK, FAILED
 *                                                                             └──▶ UNKNOWN ──locking read──▶ OK, FAILED
 */

#ifndef REGIONS
#define REGIONS 1   /* one region is every region: README.md */
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef LEASE
#define LEASE 2
#endif
#ifndef WINDOW
#define WINDOW 3    /* the lock window; the fence is its last moment */
#endif
#ifndef COMEBACKS
#define COMEBACKS 1 /* how often a region may take its lease again */
#endif
#ifndef WIPES
#define WIPES 0     /* how many memcached nodes come back empty */
#endif
#ifndef LOSSES
#define LOSSES 0    /* how many votes lose their data */
#endif
#define VOTES 3

#define RECORD_FIRST 2
#define RECORD_LAST (RECORD_FIRST + 2 * COMEBACKS)

/* Entry of the key in a region's pool. A fill's stub is NOTHING with `token`: any change of the entry takes the token. */
#define NOTHING 0
#define VALUE 1
#define LOCK(w) (2 + (w))
#define is_lock(c) ((c) >= 2)

/* Region. */
#define NORMAL 0
#define TAKING 1
#define WAITING 2
#define OUT 3 /* the model's comebacks are used up */

/* Write. */
#define IDLE 0
#define PREPARING 1
#define SENT 2
#define UNKNOWN 3
#define OK 4
#define FAILED 5

/* Write, for one region. */
#define ASKED 0
#define LOCKED 1
#define SUSPENDING 2
#define LEASE_WAIT 3
#define SUSPENDED 4

/* Statement at the primary. */
#define NONE 0
#define QUEUED 1
#define EXECUTED 2 /* has the row's lock */
#define COMMITTED 3
#define UNDONE 4

typedef Region {
    byte entry;
    byte value;      /* of a VALUE */
    byte value_rule; /* rules that its version is newer than */
    byte mode;
    byte record;     /* the number that we hold, or are taking */
    byte rule;       /* how many rules * were applied */
    byte pending;    /* what a renewal under way will give, from before it was sent */
    byte votes;
    byte valid;      /* the lease */
    byte wait;       /* until the rule */
    byte empty_wait; /* a node that came back empty: its keys are read from the primary */
    byte fill;       /* 0, 1: loading, 2: loaded */
    bool token;
    byte fill_value;
    byte fill_rule;
    bool is_read;    /* a reader has fetched a VALUE that is too old, and not yet looked at the lease */
    byte read_rule;
#ifdef FOLLOWER
    byte ask;        /* 0, or what is left since before the question was sent */
    bool is_answered;
    byte answer;
    byte answer_rule;
    byte second;     /* the lease, second-hand */
    byte second_rule;
    byte known_rule; /* from the watch */
#endif
};

typedef Write {
    byte state;
    byte window; /* what is left of the lock window, and of the fence */
    byte statement;
    byte value;
};

typedef Asked {
    byte state;
    byte record;
    byte votes;
    byte wait;
#if LOSSES > 0
    byte same; /* votes that have not lost their data since we wrote there: their `created` is what it was */
    byte seen; /* … and have answered since a majority had */
#endif
};

typedef Vote {
    byte record[REGIONS];
    byte blank; /* lost its data: no vote yet */
};

Region region[REGIONS];
Write write[WRITES];
Asked asked[WRITES * REGIONS];
Vote vote[VOTES];
byte row = 0;     /* who has the row's lock, 1 + write */
byte primary = 0; /* the value: how many writes were committed */
byte acked = 0;
byte wipes = WIPES;
byte losses = LOSSES;

#define R region[r]
#define W write[w]
#define A asked[w * REGIONS + r]
#define RECORD vote[v].record[r]
#define is_majority(votes) ((votes) == 3 || (votes) >= 5)
#define less(t) t = (t > 0 -> t - 1 : 0)

#ifdef ACKED_ONLY
#define must_be acked
#else
#define must_be primary
#endif

#ifdef FOLLOWER
#ifdef NO_RULE_WITH_LEASE
#define is_usable (R.second > 0 && R.empty_wait == 0)
#else
#define is_usable (R.second > 0 && R.known_rule >= R.second_rule && R.empty_wait == 0)
#endif
#define rule_of_reader R.known_rule
#else
#define is_usable (R.mode == NORMAL && R.valid > 0 && R.empty_wait == 0)
#define rule_of_reader R.rule
#endif

#ifdef NO_FENCE
#define is_before_deadline true
#else
#define is_before_deadline (W.window > 0)
#endif

#if LOSSES == 0 || defined(NO_CONFIRMATION)
#define is_confirmed true
#else
#define is_confirmed is_majority(A.seen)
#endif

#ifdef NO_LOCKING_FILL
#define may_load true
#else
#define may_load (row == 0)
#endif

#ifdef MERGE_LOCKS
#define is_refused(c) false
#else
#define is_refused(c) (is_lock(c) && (c) != LOCK(w)) /* a lock that has lapsed is NOTHING (Clock) */
#endif

/* Locks the entry: it takes the place of whatever is there, unless that is newer. */
inline lock_entry() {
#ifndef NO_FILL_CAS
    R.token = 0;
#endif
    R.value = 0;
    R.value_rule = 0;
#ifdef NO_LOCK_VERSION
    R.entry = NOTHING;
#else
    if
    :: is_lock(R.entry) && R.entry != LOCK(w) && write[R.entry - 2].window > W.window -> skip
    :: else -> R.entry = LOCK(w)
    fi
#endif
}

inline forget_fill() {
    R.fill = 0;
    R.token = 0;
    R.fill_value = 0;
    R.fill_rule = 0;
}

#if REGIONS == 1
#define all_ready is_ready(0)
#else
#define all_ready (is_ready(0) && is_ready(1))
#endif
#define is_ready(r) (asked[w * REGIONS + r].state == LOCKED || asked[w * REGIONS + r].state == SUSPENDED)

inline end_ok() {
    W.state = OK;
    acked = (W.value > acked -> W.value : acked);
    printf("W%d: value %d is acknowledged\n", w, W.value)
}

/* ---- time ---- */

active proctype Clock() {
    byte r, w, v;
    do
    :: d_step {
        for (w : 0 .. WRITES - 1) {
            if
            :: W.window == 1 ->
                W.window = 0;
                for (r : 0 .. REGIONS - 1) {
                    if
                    :: R.entry == LOCK(w) -> R.entry = NOTHING
                    :: else
                    fi
                }
            :: else -> less(W.window)
            fi;
            for (r : 0 .. REGIONS - 1) {
                less(A.wait)
            }
        }
        for (r : 0 .. REGIONS - 1) {
            less(R.valid);
            less(R.pending);
            if
            :: R.pending == 0 -> R.votes = 0
            :: else
            fi;
            less(R.wait);
            less(R.empty_wait);
#ifdef FOLLOWER
            less(R.second);
            if
            :: R.second == 0 -> R.second_rule = 0
            :: else
            fi;
#ifdef FROM_RECEIPT
            if
            :: !R.is_answered -> less(R.ask)
            :: else
            fi;
#else
            less(R.ask);
            less(R.answer);
#endif
            if
            :: (R.is_answered && R.answer == 0) || (!R.is_answered && R.ask == 0) -> R.is_answered = 0; R.ask = 0; R.answer = 0; R.answer_rule = 0
            :: else
            fi;
#endif
        }
        for (v : 0 .. VOTES - 1) {
            less(vote[v].blank)
        }
        r = 0; w = 0; v = 0;
        printf("T: tick\n")
    }
    od
}

/* ---- writes ---- */

proctype Writer(byte w) {
    do
    :: d_step { W.state == IDLE -> W.state = PREPARING; W.window = WINDOW; printf("W%d: begins, asks for locks\n", w) }
    :: d_step { W.state == PREPARING && all_ready -> W.state = SENT; W.statement = QUEUED; printf("W%d: sends its statement\n", w) }
    :: d_step { W.state == PREPARING && W.window == 0 -> W.state = FAILED; printf("W%d: out of time: failed\n", w) }
    :: d_step { W.state == SENT && W.statement == COMMITTED -> end_ok() }
    :: d_step { W.state == SENT && W.statement == UNDONE -> W.state = FAILED; printf("W%d: failed\n", w) }
    :: d_step { W.state == SENT -> W.state = UNKNOWN; printf("W%d: connection lost\n", w) }
    /* After the deadline a locking read knows: what has executed has the row's lock until it is committed or undone. */
    :: d_step { W.state == UNKNOWN && W.window == 0 && row == 0 && W.statement == COMMITTED -> end_ok() }
    :: d_step { W.state == UNKNOWN && W.window == 0 && row == 0 && W.statement != COMMITTED -> W.state = FAILED; printf("W%d: a locking read shows that it failed\n", w) }
    :: W.state >= OK -> break
    od
}

#define can_suspend(v) (W.state == PREPARING && A.state == SUSPENDING && !is_majority(A.votes) && vote[v].blank == 0 && !(A.votes & (1 << v)))

#if LOSSES > 0
#define forget_confirmation() A.same = 0; A.seen = 0
#else
#define forget_confirmation() skip
#endif

inline suspend_vote(v) {
    if
    :: RECORD > A.record -> A.record = RECORD | 1; A.votes = 0; forget_confirmation()
    :: else
    fi;
    RECORD = A.record;
    A.votes = A.votes | (1 << v);
#if LOSSES > 0
    A.same = A.same | (1 << v);
#endif
    printf("W%d: the record of region %d at vote %d is %d now\n", w, r, v, A.record)
}

#define can_confirm(v) (W.state == PREPARING && A.state == LEASE_WAIT && (A.same & (1 << v)) && !(A.seen & (1 << v)))

/* A write and one region: its lock is acknowledged, or it is suspended and its lease has run out. */
proctype Asker(byte w, r) {
    do
    :: d_step { W.state == PREPARING && A.state == ASKED && W.window > 0 && !is_refused(R.entry) -> lock_entry(); A.state = LOCKED; printf("W%d: region %d has locked and says so\n", w, r) }
    :: d_step { W.state == PREPARING && A.state == ASKED && W.window > 0 && is_refused(R.entry) -> W.state = FAILED; printf("W%d: region %d has another's lock: failed\n", w, r) }
    :: d_step { W.state == PREPARING && A.state == ASKED -> A.state = SUSPENDING; A.record = RECORD_FIRST + 1; printf("W%d: region %d does not answer\n", w, r) }
    :: d_step { can_suspend(0) -> suspend_vote(0) }
    :: d_step { can_suspend(1) -> suspend_vote(1) }
    :: d_step { can_suspend(2) -> suspend_vote(2) }
    :: d_step {
        W.state == PREPARING && A.state == SUSPENDING && is_majority(A.votes) ->
        A.votes = 0;
        A.record = 0;
#ifdef NO_LEASE_WAIT
        A.state = SUSPENDED;
#else
        A.state = LEASE_WAIT;
        A.wait = LEASE;
#endif
        printf("W%d: region %d is suspended at a majority\n", w, r)
    }
#if LOSSES > 0
    /* One of the majority may have lost its data before the last of it answered. */
    :: d_step { can_confirm(0) -> A.seen = A.seen | 1 }
    :: d_step { can_confirm(1) -> A.seen = A.seen | 2 }
    :: d_step { can_confirm(2) -> A.seen = A.seen | 4 }
#endif
    :: d_step { W.state == PREPARING && A.state == LEASE_WAIT && A.wait == 0 && is_confirmed -> A.state = SUSPENDED; printf("W%d: the lease of region %d has run out\n", w, r) }
    :: d_step { W.state > PREPARING -> A.state = ASKED; A.record = 0; A.votes = 0; A.wait = 0; forget_confirmation() }; break
    od
}

/* A statement at the primary: nothing bounds the time to its execution, nor to its commit. */
proctype Statement(byte w) {
    do
    :: d_step { W.statement == QUEUED && row == 0 && is_before_deadline -> W.statement = EXECUTED; row = w + 1; printf("DB: the statement of W%d executes\n", w) }
    :: d_step { W.statement == QUEUED && row == 0 && !is_before_deadline -> W.statement = UNDONE; printf("DB: the fence refuses W%d\n", w) }
    :: d_step { W.statement == EXECUTED -> W.statement = COMMITTED; row = 0; primary++; W.value = primary; printf("DB: W%d committed, the value is %d\n", w, primary) }
    :: d_step { W.statement == EXECUTED -> W.statement = UNDONE; row = 0; printf("DB: W%d rolled back\n", w) }
    :: W.statement >= COMMITTED || (W.state == FAILED && W.statement == NONE) -> break
    od
}

/* ---- what the network and the machines may do at any time ---- */

proctype Network(byte w, r) {
    do
    /* a lock whose acknowledgement is lost, or that comes late or again */
    :: d_step { W.state != IDLE && W.window > 0 && !is_refused(R.entry) && (R.entry != LOCK(w)) -> lock_entry(); printf("N: region %d gets the lock of W%d\n", r, w) }
    /* commit, or giving up: the lock becomes a tombstone of now */
    :: d_step {
        W.state >= OK && R.entry == LOCK(w) ->
        R.entry = NOTHING;
#ifdef COMMIT_STORES
        if
        :: W.state == OK -> R.entry = VALUE; R.value = W.value; R.value_rule = R.rule
        :: else
        fi;
#endif
        printf("N: region %d gives up the lock of W%d\n", r, w)
    }
    od
}

#if WIPES > 0
proctype Node(byte r) {
    do
    :: d_step {
        wipes > 0 -> wipes--;
        R.entry = NOTHING; R.value = 0; R.value_rule = 0; R.token = 0;
#ifndef NO_EMPTY_NODE_WAIT
        R.empty_wait = WINDOW;
#endif
        printf("N: the node of region %d comes back empty\n", r)
    }
    od
}
#endif

#if LOSSES > 0
inline lose_vote(v) {
    losses--;
    for (r : 0 .. REGIONS - 1) {
        RECORD = 0
    }
    r = 0;
    for (w : 0 .. WRITES * REGIONS - 1) {
        asked[w].same = asked[w].same & (7 - (1 << v));
        asked[w].seen = asked[w].seen & asked[w].same
    }
    w = 0;
#ifndef NO_EMPTY_KV_WAIT
    vote[v].blank = LEASE;
#endif
    printf("N: vote %d has lost its data\n", v)
}

active proctype Disk() {
    byte r, w;
    do
    :: d_step { losses > 0 -> lose_vote(0) }
    :: d_step { losses > 0 -> lose_vote(1) }
    :: d_step { losses > 0 -> lose_vote(2) }
    od
}
#endif

/* ---- a region ---- */

/* We are behind: the record at a vote is newer than ours, or gone and no lease of ours covers its absence. */
inline come_back(newer) {
    R.record = ((newer) | 1) + 1;
    R.mode = (R.record > RECORD_LAST -> OUT : TAKING);
    R.valid = 0; R.pending = 0; R.votes = 0; R.wait = 0;
#ifdef DESIGN_COMEBACK
    R.rule++;
#endif
    printf("R%d: was suspended, goes for %d\n", r, R.record)
}

#define can_renew(v) (R.pending > 0 && !is_majority(R.votes) && vote[v].blank == 0 && !(R.votes & (1 << v)))

inline renew_vote(v) {
    if
    :: RECORD > R.record -> come_back(RECORD)
#ifndef CREATE_AFTER_LAPSE
    :: RECORD == 0 && R.mode != TAKING && R.valid == 0 -> come_back(R.record)
#endif
    :: else -> RECORD = R.record; R.votes = R.votes | (1 << v); printf("R%d: record %d renewed at vote %d\n", r, R.record, v)
    fi
}

proctype Holder(byte r) {
    do
    :: d_step { R.mode != OUT && R.pending < LEASE && R.valid < LEASE -> R.pending = LEASE; R.votes = 0; printf("R%d: sends renewals\n", r) }
    :: d_step { can_renew(0) -> renew_vote(0) }
    :: d_step { can_renew(1) -> renew_vote(1) }
    :: d_step { can_renew(2) -> renew_vote(2) }
    :: d_step {
        is_majority(R.votes) ->
        R.valid = (R.pending > R.valid -> R.pending : R.valid);
        R.pending = 0; R.votes = 0;
        printf("R%d: has its lease\n", r);
        if
#ifdef DESIGN_COMEBACK
        :: R.mode == TAKING -> R.mode = NORMAL
#else
        :: R.mode == TAKING -> R.mode = WAITING; R.wait = WINDOW
#endif
        :: else
        fi
    }
    :: d_step {
        R.mode == WAITING && R.wait == 0 -> R.mode = NORMAL;
#ifndef NO_REJOIN_RULE
        R.rule++;
#endif
        printf("R%d: has waited, applies the rule\n", r)
    }
    od
}

/* Another sidecar of the region: what it knows of the lease and the rules is second-hand. */
#ifdef FOLLOWER
proctype Follower(byte r) {
    do
    :: d_step { R.ask == 0 && !R.is_answered && R.second < LEASE -> R.ask = LEASE; printf("F%d: asks the holder\n", r) }
    :: d_step {
        R.ask > 0 && !R.is_answered && R.mode == NORMAL && R.valid > 0 ->
        R.is_answered = 1;
#ifdef FROM_RECEIPT
        R.answer = R.valid;
#else
        R.answer = (R.valid > LEASE - R.ask -> R.valid - (LEASE - R.ask) : 0);
#endif
        R.ask = 0;
        R.answer_rule = R.rule;
        printf("F%d: the holder answers\n", r)
    }
    :: d_step {
        R.is_answered ->
        if
        :: R.answer > R.second -> R.second = R.answer; R.second_rule = R.answer_rule
        :: else
        fi;
        R.is_answered = 0; R.answer = 0; R.answer_rule = 0;
        printf("F%d: has the lease for %d ticks\n", r, R.second)
    }
    :: d_step { R.known_rule < R.rule -> R.known_rule = R.rule; printf("F%d: hears of the rule\n", r) }
    od
}
#endif

/* A read that misses, and fills. Who loads without the right to fill changes nothing, and is not here. */
proctype Filler(byte r) {
    do
    :: d_step {
        R.fill == 0 && is_usable && (R.entry == NOTHING || (R.entry == VALUE && R.value_rule < rule_of_reader)) ->
        R.entry = NOTHING; R.value = 0; R.value_rule = 0;
        R.fill = 1; R.token = 1; R.fill_rule = R.rule;
        printf("R%d: a reader misses\n", r)
    }
    :: d_step { R.fill == 1 && may_load -> R.fill_value = primary; R.fill = 2; printf("R%d: it has loaded %d\n", r, primary) }
    :: d_step {
        R.fill == 2 && R.token && !is_lock(R.entry) ->
        R.entry = VALUE; R.value = R.fill_value; R.value_rule = R.fill_rule;
        printf("R%d: it stores %d\n", r, R.value);
        forget_fill()
    }
    :: d_step { R.fill > 0 && (R.fill == 1 || !R.token) -> forget_fill(); printf("R%d: its fill is dropped\n", r) }
    od
}

/* Readers of what is too old; all others are right. The read begins when it fetches: an earlier beginning asks for less. */
proctype Reader(byte r) {
    do
    :: d_step { !R.is_read && R.entry == VALUE && R.value < must_be -> R.is_read = 1; R.read_rule = R.value_rule; printf("R%d: a reader fetches %d, but %d is due\n", r, R.value, must_be) }
    :: atomic { R.is_read && is_usable && R.read_rule >= rule_of_reader -> printf("R%d: it has the lease, and answers\n", r); assert(false) }
    :: d_step { R.is_read -> R.is_read = 0; R.read_rule = 0 }
#ifdef COVER_COMEBACK /* the model is not empty: a region that was away serves what was written meanwhile */
    :: atomic { R.entry == VALUE && R.value == primary && primary > 0 && acked == primary && R.record > RECORD_FIRST && is_usable && R.value_rule >= rule_of_reader -> assert(false) }
#endif
    od
}

init {
    byte i, j;
    atomic {
        for (i : 0 .. VOTES - 1) {
            for (j : 0 .. REGIONS - 1) {
                vote[i].record[j] = RECORD_FIRST
            }
        }
        for (j : 0 .. REGIONS - 1) {
            region[j].record = RECORD_FIRST;
            run Holder(j);
            run Filler(j);
            run Reader(j);
#if WIPES > 0
            run Node(j);
#endif
#ifdef FOLLOWER
            run Follower(j);
#endif
        }
        for (i : 0 .. WRITES - 1) {
            run Writer(i);
            run Statement(i);
            for (j : 0 .. REGIONS - 1) {
                run Asker(i, j);
                run Network(i, j)
            }
        }
        i = 0; j = 0
    }
}

#ifdef LIVE /* under weak fairness: whatever stays possible for a process is done some time */
ltl every_write_ends { <> (write[0].state >= OK) }
#endif
