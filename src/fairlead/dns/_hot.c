/* The answering loop's inner part in C: take datagrams, look them up, send what is known, hand the rest back.
 *
 * Stands where server.py's own loop stands and does what it does, over the same table and the same buffers (see
 * sockets.Batch), so that there is nothing to keep in step. Invariants: only an answer that is a bytes object, or whose
 * turn() is one, is sent from here, after the packet's own id; everything else is returned; nothing blocks.
 */
#define _GNU_SOURCE
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define SLOTS 64
#define SLOT_SIZE 4096

/* Send the slots from `first` to before `end`; what the kernel refuses is lost, as datagrams are. */
static void
send_run(int fd, struct mmsghdr *out, int first, int end)
{
    while (first < end) {
        int sent = sendmmsg(fd, out + first, (unsigned)(end - first), MSG_DONTWAIT);
        first += sent > 0 ? sent : 1;
    }
}

/* Lay out the packet's id and the answer in a slot. 0: it does not fit. */
static int
lay_out(struct mmsghdr *slot, const char *packet, PyObject *answer)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(answer, &bytes, &size) < 0 || size + 2 > SLOT_SIZE) {
        PyErr_Clear();
        return 0;
    }
    struct iovec *to = slot->msg_hdr.msg_iov;
    memcpy(to->iov_base, packet, 2);
    memcpy((char *)to->iov_base + 2, bytes, (size_t)size);
    to->iov_len = (size_t)size + 2;
    return 1;
}

PyDoc_STRVAR(drain_doc,
"drain(fd, received, sending, table, rotating, seen) -> (count, rest)\n\n"
"Take up to 64 datagrams and answer those whose bytes after the id are in `table` as bytes, or as an instance of the class\n"
"`rotating`, whose turn() gives them. `received` and `sending` are the addresses of mmsghdr arrays over slots of 4096\n"
"bytes. What was found for the answers sent is appended to `seen` unless it is None. `rest` are (slot, key, value or None)\n"
"of all others.");

static PyObject *
drain(PyObject *module, PyObject *args)
{
    int fd;
    unsigned long long received, sending;
    PyObject *table, *rotating, *seen;
    if (!PyArg_ParseTuple(args, "iKKO!OO", &fd, &received, &sending, &PyDict_Type, &table, &rotating, &seen))
        return NULL;
    struct mmsghdr *in = (struct mmsghdr *)(uintptr_t)received;
    struct mmsghdr *out = (struct mmsghdr *)(uintptr_t)sending;
    int count = recvmmsg(fd, in, SLOTS, MSG_DONTWAIT, NULL);
    if (count < 0)
        count = 0;
    PyObject *rest = PyList_New(0);
    if (rest == NULL)
        return NULL;
    int first = 0; /* of the run of slots that have an answer laid out */
    for (int slot = 0; slot < count; slot++) {
        const char *packet = in[slot].msg_hdr.msg_iov->iov_base;
        Py_ssize_t length = (Py_ssize_t)in[slot].msg_len;
        PyObject *key = PyBytes_FromStringAndSize(length > 2 ? packet + 2 : NULL, length > 2 ? length - 2 : 0);
        if (key == NULL)
            goto fail;
        PyObject *value = PyDict_GetItemWithError(table, key); /* borrowed */
        int sent = 0;
        if (value != NULL && PyBytes_CheckExact(value)) {
            sent = lay_out(out + slot, packet, value);
        } else if (value != NULL && (PyObject *)Py_TYPE(value) == rotating) {
            PyObject *answer = PyObject_CallMethod(value, "turn", NULL);
            sent = answer != NULL && lay_out(out + slot, packet, answer);
            Py_XDECREF(answer);
        }
        if (!sent && PyErr_Occurred()) {
            Py_DECREF(key);
            goto fail;
        }
        if (sent) {
            Py_DECREF(key);
            if (seen != Py_None && PyList_Append(seen, value) < 0)
                goto fail;
            continue;
        }
        send_run(fd, out, first, slot);
        first = slot + 1;
        PyObject *entry = Py_BuildValue("(iNO)", slot, key, value != NULL ? value : Py_None);
        if (entry == NULL)
            goto fail;
        int failed = PyList_Append(rest, entry);
        Py_DECREF(entry);
        if (failed < 0)
            goto fail;
    }
    send_run(fd, out, first, count);
    return Py_BuildValue("(iN)", count, rest);
fail:
    Py_DECREF(rest);
    return NULL;
}

static PyMethodDef methods[] = {
    {"drain", drain, METH_VARARGS, drain_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fairlead.dns._hot",
    .m_doc = "The answering loop's inner part.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__hot(void)
{
    return PyModuleDef_Init(&definition);
}
