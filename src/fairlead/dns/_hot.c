/* The answering loop in C: a thread that takes datagrams, looks them up, sends what is known and hands on the rest.
 *
 * Stands before server.py, which feeds it what its table knows and takes what it does not. The thread never holds the
 * interpreter's lock, so nothing that Python does keeps an answer waiting. Invariants: the table here is a copy of
 * Table.young without what depends on the client, changed only under `lock`, which the thread holds for one batch's
 * look-ups at most; an answer that was dropped is not sent once `drop` has returned, but for those laid out already;
 * what is not known goes to Python with its sender, in order, unless more than MISSES wait there.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "siphash.h"

#define SLOTS 64
#define SLOT_SIZE 4096
#define MISSES 8192
#define LAST_BATCHES 64 /* taken at most after `stop` */

/* An answer. One whose records take turns is `before`, `shown` bytes of the records (which are there twice) from
 * `offset` on, and `after`; any other is `before` alone. */
struct entry {
    struct entry *next;
    uint64_t hash, hits;
    uint32_t key, before, records, unit, shown, after, offset;
    unsigned char data[];
};

struct miss {
    struct miss *next;
    socklen_t name_size;
    uint32_t size;
    struct sockaddr_in6 name;
    unsigned char packet[];
};

struct batch {
    struct mmsghdr in[SLOTS], out[SLOTS];
    struct iovec in_vectors[SLOTS], out_vectors[SLOTS];
    struct sockaddr_in6 names[SLOTS];
    unsigned char received[SLOTS][SLOT_SIZE], sending[SLOTS][SLOT_SIZE];
};

typedef struct {
    PyObject_HEAD
    int fd, wake, ready; /* the socket; eventfds: there is something to do, there are misses */
    int running;
    atomic_int stopping;
    pthread_t thread;
    pthread_mutex_t lock;
    uint64_t secret[2];
    struct entry **buckets;
    size_t mask;
    struct miss *first, **last;
    uint32_t waiting;
    struct batch *batch;
} Loop;

/* -- the table, all of it under the lock ---------------------------------------------------------------------------- */

/* Where the entry is, or would be, linked. */
static struct entry **
place_of(Loop *self, const unsigned char *key, size_t size, uint64_t hash)
{
    struct entry **at = &self->buckets[hash & self->mask];
    for (; *at != NULL; at = &(*at)->next)
        if ((*at)->hash == hash && (*at)->key == size && memcmp((*at)->data, key, size) == 0)
            break;
    return at;
}

static uint64_t
take_out(Loop *self, const unsigned char *key, size_t size, uint64_t hash)
{
    struct entry **at = place_of(self, key, size, hash), *found = *at;
    if (found == NULL)
        return 0;
    uint64_t hits = found->hits;
    *at = found->next;
    free(found);
    return hits;
}

static void
empty(Loop *self)
{
    for (size_t bucket = 0; bucket <= self->mask; bucket++)
        while (self->buckets[bucket] != NULL) {
            struct entry *gone = self->buckets[bucket];
            self->buckets[bucket] = gone->next;
            free(gone);
        }
}

/* -- the thread ----------------------------------------------------------------------------------------------------- */

/* The packet's id and the answer, in a slot. 0: it does not fit. */
static int
lay_out(struct batch *batch, int slot, struct entry *found)
{
    size_t size = 2 + (size_t)found->before + found->shown + found->after;
    if (size > SLOT_SIZE)
        return 0;
    unsigned char *to = batch->sending[slot];
    const unsigned char *from = found->data + found->key;
    memcpy(to, batch->received[slot], 2);
    memcpy(to + 2, from, found->before);
    if (found->records != 0) {
        memcpy(to + 2 + found->before, from + found->before + found->offset, found->shown);
        memcpy(to + 2 + found->before + found->shown, from + found->before + 2 * (size_t)found->records, found->after);
        uint32_t following = found->offset + found->unit;
        found->offset = following < found->records ? following : 0;
    }
    found->hits++;
    batch->out_vectors[slot].iov_len = size;
    batch->out[slot].msg_hdr.msg_namelen = batch->in[slot].msg_hdr.msg_namelen;
    return 1;
}

/* Send the slots from `first` to before `end`; what the kernel refuses is lost, as datagrams are. */
static void
send_run(int fd, struct mmsghdr *out, int first, int end)
{
    while (first < end) {
        int sent = sendmmsg(fd, out + first, (unsigned)(end - first), MSG_DONTWAIT);
        first += sent > 0 ? sent : 1;
    }
}

static void
hand_on(Loop *self, int slot)
{
    const struct mmsghdr *from = &self->batch->in[slot];
    uint32_t size = from->msg_len < SLOT_SIZE ? from->msg_len : SLOT_SIZE;
    struct miss *miss = malloc(sizeof *miss + size);
    if (miss == NULL)
        return;
    miss->next = NULL;
    miss->size = size;
    miss->name_size = from->msg_hdr.msg_namelen < sizeof miss->name ? from->msg_hdr.msg_namelen : sizeof miss->name;
    memcpy(&miss->name, &self->batch->names[slot], miss->name_size);
    memcpy(miss->packet, self->batch->received[slot], size);
    pthread_mutex_lock(&self->lock);
    int room = self->waiting < MISSES;
    int alone = self->waiting == 0;
    if (room) {
        *self->last = miss;
        self->last = &miss->next;
        self->waiting++;
    }
    pthread_mutex_unlock(&self->lock);
    if (!room)
        free(miss);
    else if (alone)
        (void)!write(self->ready, &(uint64_t){1}, sizeof(uint64_t));
}

/* Take what waits, up to a batch, and answer it. How many datagrams there were. */
static int
turn(Loop *self)
{
    struct batch *batch = self->batch;
    for (int slot = 0; slot < SLOTS; slot++)
        batch->in[slot].msg_hdr.msg_namelen = sizeof batch->names[slot];
    int count = recvmmsg(self->fd, batch->in, SLOTS, MSG_DONTWAIT, NULL);
    if (count <= 0)
        return count;
    unsigned char known[SLOTS] = {0};
    pthread_mutex_lock(&self->lock);
    for (int slot = 0; slot < count; slot++) {
        size_t size = batch->in[slot].msg_len;
        if (size <= 2)
            continue;
        const unsigned char *key = batch->received[slot] + 2;
        struct entry *found = *place_of(self, key, size - 2, siphash(self->secret, key, size - 2));
        if (found != NULL)
            known[slot] = (unsigned char)lay_out(batch, slot, found);
    }
    pthread_mutex_unlock(&self->lock);
    int first = 0; /* of the run of slots that have an answer laid out */
    for (int slot = 0; slot < count; slot++)
        if (!known[slot]) {
            send_run(self->fd, batch->out, first, slot);
            first = slot + 1;
        }
    send_run(self->fd, batch->out, first, count);
    for (int slot = 0; slot < count; slot++)
        if (!known[slot])
            hand_on(self, slot);
    return count;
}

static void *
run(void *argument)
{
    Loop *self = argument;
    int last = LAST_BATCHES;
    for (;;) {
        int count = turn(self);
        if (count < 0 && errno == EBADF)
            return NULL;
        if (atomic_load(&self->stopping) && (count <= 0 || --last == 0))
            return NULL;
        if (count < 0 && errno != EINTR) {
            struct pollfd wanted[] = {{.fd = self->fd, .events = POLLIN}, {.fd = self->wake, .events = POLLIN}};
            poll(wanted, 2, -1);
        }
    }
}

/* -- what Python sees ----------------------------------------------------------------------------------------------- */

static void
stop_thread(Loop *self)
{
    if (!self->running)
        return;
    atomic_store(&self->stopping, 1);
    (void)!write(self->wake, &(uint64_t){1}, sizeof(uint64_t));
    Py_BEGIN_ALLOW_THREADS
    pthread_join(self->thread, NULL);
    Py_END_ALLOW_THREADS
    self->running = 0;
}

static void
loop_dealloc(PyObject *object)
{
    Loop *self = (Loop *)object;
    PyTypeObject *type = Py_TYPE(object);
    stop_thread(self);
    if (self->buckets != NULL)
        empty(self);
    while (self->first != NULL) {
        struct miss *gone = self->first;
        self->first = gone->next;
        free(gone);
    }
    free(self->buckets);
    free(self->batch);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    if (self->wake >= 0)
        close(self->wake);
    if (self->ready >= 0)
        close(self->ready);
    pthread_mutex_destroy(&self->lock);
    release(object);
    Py_DECREF(type);
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int fd;
    unsigned int size;
    if (kwargs != NULL || !PyArg_ParseTuple(args, "iI", &fd, &size))
        return kwargs != NULL ? PyErr_Format(PyExc_TypeError, "Loop takes no keywords") : NULL;
    Loop *self = (Loop *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->fd = fd;
    self->last = &self->first;
    pthread_mutex_init(&self->lock, NULL);
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    self->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    size_t buckets = 1024;
    while (buckets < size)
        buckets *= 2;
    self->mask = buckets - 1;
    self->buckets = calloc(buckets, sizeof *self->buckets);
    struct batch *batch = self->batch = calloc(1, sizeof *self->batch);
    if (self->buckets == NULL || batch == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    if (self->wake < 0 || self->ready < 0 ||
        getrandom(self->secret, sizeof self->secret, 0) != (ssize_t)sizeof self->secret) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        batch->in_vectors[slot] = (struct iovec){batch->received[slot], SLOT_SIZE};
        batch->out_vectors[slot] = (struct iovec){batch->sending[slot], 0};
        batch->in[slot].msg_hdr.msg_iov = &batch->in_vectors[slot];
        batch->out[slot].msg_hdr.msg_iov = &batch->out_vectors[slot];
        batch->in[slot].msg_hdr.msg_iovlen = batch->out[slot].msg_hdr.msg_iovlen = 1;
        batch->in[slot].msg_hdr.msg_name = batch->out[slot].msg_hdr.msg_name = &batch->names[slot];
    }
    return (PyObject *)self;
}

static PyObject *
loop_start(PyObject *object, PyObject *unused)
{
    Loop *self = (Loop *)object;
    if (self->running || atomic_load(&self->stopping))
        return PyErr_Format(PyExc_RuntimeError, "a loop starts once");
    sigset_t all, before; /* signals are Python's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&self->thread, NULL, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    self->running = 1;
    Py_RETURN_NONE;
}

static PyObject *
loop_stop(PyObject *object, PyObject *unused)
{
    stop_thread((Loop *)object);
    Py_RETURN_NONE;
}

static PyObject *
loop_fileno(PyObject *object, PyObject *unused)
{
    return PyLong_FromLong(((Loop *)object)->ready);
}

static PyObject *
loop_put(PyObject *object, PyObject *args)
{
    Loop *self = (Loop *)object;
    const char *key, *before, *records = "", *after = "";
    Py_ssize_t key_size, before_size, records_size = 0, after_size = 0;
    unsigned int unit = 0, shown = 0;
    if (!PyArg_ParseTuple(args, "y#y#|y#IIy#", &key, &key_size, &before, &before_size, &records, &records_size, &unit,
                          &shown, &after, &after_size))
        return NULL;
    Py_ssize_t size = key_size + before_size + records_size + after_size;
    if (size > 1 << 20 || records_size % 2 || shown > records_size / 2 || unit > records_size / 2)
        return PyErr_Format(PyExc_ValueError, "an answer out of bounds");
    struct entry *made = malloc(sizeof *made + (size_t)size);
    if (made == NULL)
        return PyErr_NoMemory();
    *made = (struct entry){
        .hash = siphash(self->secret, (const unsigned char *)key, (size_t)key_size),
        .key = (uint32_t)key_size,
        .before = (uint32_t)before_size,
        .records = (uint32_t)(records_size / 2),
        .unit = unit,
        .shown = shown,
        .after = (uint32_t)after_size,
    };
    unsigned char *to = made->data;
    memcpy(to, key, (size_t)key_size);
    memcpy(to += key_size, before, (size_t)before_size);
    memcpy(to += before_size, records, (size_t)records_size);
    memcpy(to + records_size, after, (size_t)after_size);
    pthread_mutex_lock(&self->lock);
    take_out(self, made->data, made->key, made->hash);
    struct entry **bucket = &self->buckets[made->hash & self->mask];
    made->next = *bucket;
    *bucket = made;
    pthread_mutex_unlock(&self->lock);
    Py_RETURN_NONE;
}

static PyObject *
loop_drop(PyObject *object, PyObject *args)
{
    Loop *self = (Loop *)object;
    const char *key;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#", &key, &size))
        return NULL;
    uint64_t hash = siphash(self->secret, (const unsigned char *)key, (size_t)size);
    pthread_mutex_lock(&self->lock);
    uint64_t hits = take_out(self, (const unsigned char *)key, (size_t)size, hash);
    pthread_mutex_unlock(&self->lock);
    return PyLong_FromUnsignedLongLong(hits);
}

static PyObject *
loop_clear(PyObject *object, PyObject *unused)
{
    Loop *self = (Loop *)object;
    pthread_mutex_lock(&self->lock);
    empty(self);
    pthread_mutex_unlock(&self->lock);
    Py_RETURN_NONE;
}

static PyObject *
loop_hits(PyObject *object, PyObject *unused)
{
    /* Only the interpreter's threads add and remove entries, and this one has the interpreter: nothing moves but the
     * counts, so the lock is needed only to take those. */
    Loop *self = (Loop *)object;
    PyObject *found = PyList_New(0);
    for (size_t bucket = 0; found != NULL && bucket <= self->mask; bucket++)
        for (struct entry *each = self->buckets[bucket]; found != NULL && each != NULL; each = each->next) {
            pthread_mutex_lock(&self->lock);
            uint64_t hits = each->hits;
            each->hits = 0;
            pthread_mutex_unlock(&self->lock);
            if (hits == 0)
                continue;
            PyObject *pair = Py_BuildValue("(y#K)", (char *)each->data, (Py_ssize_t)each->key, (unsigned long long)hits);
            if (pair == NULL || PyList_Append(found, pair) < 0)
                Py_CLEAR(found);
            Py_XDECREF(pair);
        }
    return found;
}

static PyObject *
loop_take(PyObject *object, PyObject *unused)
{
    Loop *self = (Loop *)object;
    uint64_t ignored;
    (void)!read(self->ready, &ignored, sizeof ignored);
    pthread_mutex_lock(&self->lock);
    struct miss *each = self->first;
    self->first = NULL;
    self->last = &self->first;
    self->waiting = 0;
    pthread_mutex_unlock(&self->lock);
    PyObject *found = PyList_New(0);
    while (each != NULL) {
        struct miss *next = each->next;
        PyObject *pair = found == NULL ? NULL
                                       : Py_BuildValue("(y#y#)", (char *)each->packet, (Py_ssize_t)each->size,
                                                       (char *)&each->name, (Py_ssize_t)each->name_size);
        if (pair == NULL || PyList_Append(found, pair) < 0)
            Py_CLEAR(found);
        Py_XDECREF(pair);
        free(each);
        each = next;
    }
    return found;
}

static PyMethodDef loop_methods[] = {
    {"start", loop_start, METH_NOARGS, "Begin to answer, on a thread of its own. Raises OSError."},
    {"stop", loop_stop, METH_NOARGS, "Take what is in the socket, then end. What was not known waits to be taken."},
    {"fileno", loop_fileno, METH_NOARGS, "Readable while there are packets to take."},
    {"put", loop_put, METH_VARARGS,
     "put(key, before[, records, unit, shown, after])\n\nKnow the answer to a packet. `records`, given twice over, take "
     "turns: each time `shown` bytes of them, `unit` further on."},
    {"drop", loop_drop, METH_VARARGS, "Forget an answer; returns how often it was given since that was last asked."},
    {"clear", loop_clear, METH_NOARGS, "Forget all."},
    {"hits", loop_hits, METH_NOARGS, "[(key, how often it was answered since the last call)]."},
    {"take", loop_take, METH_NOARGS, "The packets whose answers are not known, each with its sender's sockaddr."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "Loop(fd, size): answers on a UDP socket that does not block, out of a table for about `size` answers."},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_methods, loop_methods},
    {0, NULL},
};

static PyType_Spec loop_spec = {"fairlead.dns._hot.Loop", sizeof(Loop), 0, Py_TPFLAGS_DEFAULT, loop_slots};

static int
fill(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&loop_spec);
    int failed = type == NULL || PyModule_AddObjectRef(module, "Loop", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fairlead.dns._hot",
    .m_doc = "The answering loop in C.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__hot(void)
{
    return PyModuleDef_Init(&definition);
}
