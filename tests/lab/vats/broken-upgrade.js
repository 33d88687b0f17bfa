// Fails when it is started, so an upgrade to it is undone.
export function buildRootObject() {
  throw Error('this incarnation cannot start');
}
