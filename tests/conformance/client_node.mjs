// What people do with @kubernetes/client-node, against the API server that KUBECONFIG names, in the namespace given.
//
// node client_node.mjs MODULES NAMESPACE POD CONTAINER PORT: one line of JSON with what was seen; exit code 1 and the
// failure otherwise. POD has CONTAINER, whose commands run, and what answers on PORT says hello, and then what it
// was told.

import { createRequire } from 'node:module';
import assert from 'node:assert/strict';
import net from 'node:net';
import { PassThrough } from 'node:stream';

const [modules, namespace, pod, container, port] = process.argv.slice(2);
const k8s = createRequire(`${modules}/`)('@kubernetes/client-node');
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const seen = {};

const until = async (condition, what) => {
  const end = Date.now() + 60_000;
  while (Date.now() < end) {
    const found = await condition();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: not within 60 s`);
};

const configMap = (name, data) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data });

async function objects() {
  const made = await core.createNamespacedConfigMap({ namespace, body: configMap('a', { k: '1' }) });
  assert.equal(made.data.k, '1');
  assert.ok(made.metadata.creationTimestamp instanceof Date);
  made.data.k = '2';
  const replaced = await core.replaceNamespacedConfigMap({ name: 'a', namespace, body: made });
  await assert.rejects(core.replaceNamespacedConfigMap({ name: 'a', namespace, body: made }), (e) => e.code === 409);
  const listed = await core.listNamespacedConfigMap({ namespace, labelSelector: '!nothing' });
  assert.deepEqual(listed.items.map((item) => item.metadata.name), ['a']);
  assert.equal(replaced.data.k, '2');
  await core.deleteNamespacedConfigMap({ name: 'a', namespace });
  await assert.rejects(core.readNamespacedConfigMap({ name: 'a', namespace }), (e) => e.code === 404);
  const service = { metadata: { name: 'web' }, spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 'http' }] } };
  const created = await core.createNamespacedService({ namespace, body: service });
  assert.match(created.spec.clusterIP, /^10\.96\./);
  await core.deleteNamespacedService({ name: 'web', namespace });
  seen.objects = true;
}

async function patches() {
  const labels = { app: 'web' };
  const spec = { containers: [{ name: 'main', image: 'a' }, { name: 'side', image: 'b' }] };
  const body = { metadata: { name: 'web', labels }, spec: { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec } } };
  await apps.createNamespacedDeployment({ namespace, body });
  const patch = (body, type, more = {}) =>
    apps.patchNamespacedDeployment({ name: 'web', namespace, body, ...more }, k8s.setHeaderOptions('Content-Type', type));
  let now = await patch([{ op: 'replace', path: '/spec/replicas', value: 3 }], k8s.PatchStrategy.JsonPatch);
  assert.equal(now.spec.replicas, 3);
  now = await patch({ metadata: { labels: { app: null, tier: 'front' } } }, k8s.PatchStrategy.MergePatch);
  assert.deepEqual(now.metadata.labels, { tier: 'front' });
  now = await patch({ spec: { template: { spec: { containers: [{ name: 'side', image: 'c' }] } } } }, k8s.PatchStrategy.StrategicMergePatch);
  assert.deepEqual(now.spec.template.spec.containers.map((c) => `${c.name}=${c.image}`).sort(), ['main=a', 'side=c']);
  const applied = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', annotations: { by: 'apply' } } };
  now = await patch(applied, k8s.PatchStrategy.ServerSideApply, { fieldManager: 'node', force: true });
  assert.equal(now.metadata.annotations.by, 'apply');
  assert.ok(now.metadata.managedFields.some((entry) => entry.manager === 'node' && entry.operation === 'Apply'));
  const scale = await apps.readNamespacedDeploymentScale({ name: 'web', namespace });
  assert.equal(scale.spec.replicas, 3);
  scale.spec.replicas = 5;
  assert.equal((await apps.replaceNamespacedDeploymentScale({ name: 'web', namespace, body: scale })).spec.replicas, 5);
  seen.patches = true;
}

async function anyObject() {
  const client = k8s.KubernetesObjectApi.makeApiClient(config);
  const wanted = configMap('any', { k: '1' });
  await client.create(wanted);
  assert.equal((await client.read(wanted)).data.k, '1');
  await client.patch({ ...wanted, data: { k: '2' } }, undefined, undefined, 'node', undefined, k8s.PatchStrategy.MergePatch);
  const found = await client.list('v1', 'ConfigMap', namespace);
  assert.ok(found.items.some((item) => item.metadata.name === 'any' && item.data.k === '2'));
  await client.delete(wanted);
  seen.anyObject = true;
}

async function watching() {
  const events = [];
  const watch = new k8s.Watch(config);
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const { metadata } = await core.listNamespacedConfigMap({ namespace });
  const query = { resourceVersion: metadata.resourceVersion, labelSelector: 'watched' };
  const request = await watch.watch(path, query, (type, obj) => events.push([type, obj.metadata.name, obj.data?.k]), () => {});
  const body = configMap('w', { k: '1' });
  body.metadata.labels = { watched: '' };
  await core.createNamespacedConfigMap({ namespace, body });
  await core.replaceNamespacedConfigMap({ name: 'w', namespace, body: { ...body, data: { k: '2' } } });
  await core.deleteNamespacedConfigMap({ name: 'w', namespace });
  await until(() => events.length >= 3, 'three events');
  request.abort();
  assert.deepEqual(events, [['ADDED', 'w', '1'], ['MODIFIED', 'w', '2'], ['DELETED', 'w', '2']]);
  seen.watching = true;
}

async function informer() {
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
  const log = [];
  for (const kind of ['add', 'update', 'delete']) informer.on(kind, (obj) => log.push(`${kind} ${obj.metadata.name}`));
  await core.createNamespacedConfigMap({ namespace, body: configMap('before') });
  await informer.start();
  await until(() => log.includes('add before'), 'what was there');
  await core.createNamespacedConfigMap({ namespace, body: configMap('after') });
  await until(() => log.includes('add after'), 'what came');
  assert.equal(informer.get('after', namespace).metadata.name, 'after');
  await core.replaceNamespacedConfigMap({ name: 'after', namespace, body: configMap('after', { k: '2' }) });
  await until(() => log.includes('update after'), 'what changed');
  await core.deleteNamespacedConfigMap({ name: 'after', namespace });
  await until(() => log.includes('delete after'), 'what went');
  assert.equal(informer.get('after', namespace), undefined);
  await informer.stop();
  seen.informer = true;
}

const collect = (stream) => {
  const chunks = [];
  stream.on('data', (chunk) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
};

async function logs() {
  const text = await core.readNamespacedPodLog({ name: pod, namespace, container, tailLines: 2 });
  seen.logs = text;
  const stream = new PassThrough();
  const got = collect(stream);
  await new k8s.Log(config).log(namespace, pod, container, stream, { follow: true, tailLines: 1 });
  await until(() => got().includes('later 0'), 'a line that came later');
}

async function exec() {
  const [out, err] = [new PassThrough(), new PassThrough()];
  const [said, complained] = [collect(out), collect(err)];
  const stdin = new PassThrough();
  const command = ['sh', '-c', 'read line; echo got $line; echo bad >&2; exit 3'];
  let status;
  await new k8s.Exec(config).exec(namespace, pod, container, command, out, err, stdin, false, (s) => (status = s));
  stdin.write('hello\n');
  await until(() => status, 'the exit code');
  await until(() => said() && complained(), 'both outputs');
  assert.deepEqual([said(), complained()], ['got hello\n', 'bad\n']);
  assert.equal(status.status, 'Failure');
  assert.deepEqual(status.details.causes.map((c) => [c.reason, c.message]), [['ExitCode', '3']]);
  seen.exec = true;
}

async function portForward() {
  const forward = new k8s.PortForward(config);
  const server = net.createServer((socket) => forward.portForward(namespace, pod, [Number(port)], socket, null, socket));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  for (const word of ['one', 'two']) {
    const socket = net.connect(server.address().port, '127.0.0.1');
    const got = collect(socket);
    socket.write(`${word}\n.\n`);
    await until(() => got().startsWith('hello\n') && got().includes(`${word}\n.\n`), 'the answer');
    socket.destroy();
  }
  server.close();
  seen.portForward = true;
}

try {
  for (const part of [objects, patches, anyObject, watching, informer, logs, exec, portForward]) await part();
  console.log(JSON.stringify(seen));
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}
